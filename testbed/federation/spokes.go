package federation

import (
	"fmt"
	"strings"
)

// member is a spoke that has its place in the federation, and nothing else on its host.
const member = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: member}
spec:
  role: spoke
  values: {code: {required: true}, country: {required: true}}
  components:
    registration:
      kind: SpokeRegistration
      urls:
        base: https://${lower(code)}.example:3000
        api: https://${lower(code)}.example:4000
        idp: https://127.0.0.1:1
      contactEmail: ops@${lower(code)}.example
      requestedScopes: ["policy:base", "policy:org"]
      trustLevel: partner
      maxClassification: SECRET
      dataIsolationLevel: filtered
      skipValidation: true
      handover: ${instances.usa.federation.handover}
`

// AddMember adds the blueprint member, a spoke that has its place in the federation and nothing else on its host. The hub's
// instance is usa, its component federation.
func AddMember(files map[string]string) { files["blueprints/member/blueprint.yaml"] = member }

// Name is that of the spoke of this number, below 1000; in capitals it is its code.
func Name(i int) string {
	const letters = "abcdefghij"
	return fmt.Sprintf("%c%02d", letters[i/100], i%100)
}

// Joins adds an instance of the blueprint member.
func Joins(files map[string]string, name, host string) {
	files["instances/"+name+".yaml"] = fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: %s}\nspec:\n  blueprint: member\n  host: %s\n  values: {code: %[3]s, country: Land %[3]s}\n", name, host, strings.ToUpper(name))
}

// caller is a spoke whose backend takes requests that its token has to be good for, and a client that sends them.
const caller = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: caller}
spec:
  role: spoke
  values:
    code: {required: true}
    country: {required: true}
    project: {required: true}
    hubURL: {required: true}
    mongoImage: {required: true}
    backendImage: {required: true}
    clientImage: {required: true}
  secrets:
    MONGO_PASSWORD: {generate: {length: 24}}
    MONGO_KEYFILE:  {generate: {kind: mongodb-keyfile}, file: {path: mongo-keyfile, mode: "0400", owner: 999, group: 999}}
  components:
    stack:
      kind: ComposeStack
      project: ${project}
      environment:
        INSTANCE_CODE: ${code}
        MONGO_IMAGE: ${mongoImage}
        BACKEND_IMAGE: ${backendImage}
        CLIENT_IMAGE: ${clientImage}
        MONGO_PASSWORD: ${MONGO_PASSWORD}
        MONGODB_URL: ${database.uri}
        HUB_URL: ${hubURL}
        SPOKE_ID: ${registration.spoke_id}
        SPOKE_TOKEN: ${registration.token}
      update: {backend: {order: start-first, monitor: 1s}}
    database:
      kind: MongoReplicaSet
      name: rs0
      members: [{service: mongodb}]
      root: {username: admin, password: "${MONGO_PASSWORD}"}
      database: dive-v3
    registration:
      kind: SpokeRegistration
      urls: {base: "https://${lower(code)}.example:3000", api: "https://${lower(code)}.example:4000", idp: "https://127.0.0.1:1"}
      contactEmail: ops@${lower(code)}.example
      requestedScopes: ["policy:base"]
      skipValidation: true
      handover: ${instances.usa.federation.handover}
`

const callerCompose = Mongod + `  backend:
    image: ${BACKEND_IMAGE}
    init: true
    restart: unless-stopped
    command: [backend]
    environment:
      PORT: "4000"
      INSTANCE_CODE: ${INSTANCE_CODE}
      MONGODB_URL: ${MONGODB_URL}
      HUB_URL: ${HUB_URL}
      HUB_CA_FILE: /etc/dive/hub-ca.pem
      SPOKE_ID: ${SPOKE_ID}
      SPOKE_TOKEN: ${SPOKE_TOKEN}
    extra_hosts: ["host.docker.internal:host-gateway"]
    volumes: ["./hub-ca.pem:/etc/dive/hub-ca.pem:ro"]
    healthcheck: {test: [CMD, services, healthcheck], interval: 1s, timeout: 5s, retries: 15, start_period: 20s}
  client:
    image: ${CLIENT_IMAGE}
    init: true
    command: [python3, /load/client.py]
    environment: {HOST: backend, PORT: "4000", PATH_ASKED: /api/partners, RATE: "100"}
    volumes: ["./load:/load:ro"]
    stop_grace_period: 30s
    depends_on: {backend: {condition: service_healthy}}
volumes:
  mongodb: {}
`

// AddCaller adds the blueprint caller: a spoke whose backend asks the hub with its token for each request, and is changed
// start-first, and a client that sends it 100 a second, for testbed.CountRequests.
func AddCaller(files map[string]string, hubCA, client string) {
	files["blueprints/caller/blueprint.yaml"] = caller
	files["blueprints/caller/compose.yaml"] = callerCompose
	files["blueprints/caller/hub-ca.pem"] = hubCA
	files["blueprints/caller/load/client.py"] = client
}
