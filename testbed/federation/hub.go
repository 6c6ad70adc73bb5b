package federation

// AddHub adds the blueprint small-hub: a hub with nothing but its records in a MongoDB and its API, so that it takes little of the
// machine, and its approvals. Its component is federation; it hands over to spokes that read it. HUB_TLS_CERT and HUB_TLS_KEY
// are to be provided, and its ports are those of the examples with its offset.
func AddHub(files map[string]string) {
	files["blueprints/small-hub/blueprint.yaml"] = hubBlueprint
	files["blueprints/small-hub/compose.yaml"] = hubCompose
}

const hubBlueprint = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: small-hub}
spec:
  role: hub
  values:
    code: {required: true}
    project: {required: true}
    portOffset: {required: true}
    mongoImage: {required: true}
    backendImage: {required: true}
    tokenLife: 24h
  secrets:
    MONGO_PASSWORD:       {generate: {length: 24}}
    MONGO_KEYFILE:        {generate: {kind: mongodb-keyfile}, file: {path: mongo-keyfile, mode: "0400", owner: 999, group: 999}}
    FEDERATION_ADMIN_KEY: {generate: {kind: token, length: 43}}
    HUB_TLS_CERT:         {provide: true, file: {path: hub-tls.crt, mode: "0444"}}
    HUB_TLS_KEY:          {provide: true, file: {path: hub-tls.key, mode: "0400", owner: 1000, group: 1000}}
  components:
    stack:
      kind: ComposeStack
      project: ${project}
      environment:
        INSTANCE_CODE: ${code}
        MONGO_IMAGE: ${mongoImage}
        BACKEND_IMAGE: ${backendImage}
        BACKEND_PORT: ${4000 + portOffset}
        MONGO_PASSWORD: ${MONGO_PASSWORD}
        MONGODB_URL: ${database.uri}
        FEDERATION_ADMIN_KEY: ${FEDERATION_ADMIN_KEY}
        TOKEN_LIFE: ${tokenLife}
    database:
      kind: MongoReplicaSet
      name: rs0
      members: [{service: mongodb}]
      root: {username: admin, password: "${MONGO_PASSWORD}"}
      database: dive-v3
    federation:
      kind: SpokeApprovals
      adminKey: ${FEDERATION_ADMIN_KEY}
      service: backend
      publish: [handover]
`

// Mongod is the beginning of a Compose file: a MongoDB that takes its password and a key file of the instance's secrets.
const Mongod = `services:
  mongodb:
    image: ${MONGO_IMAGE}
    init: true
    restart: unless-stopped
    command: [mongod, --replSet, rs0, --keyFile, /etc/mongo-keyfile, --bind_ip_all]
    environment: {MONGO_INITDB_ROOT_USERNAME: admin, MONGO_INITDB_ROOT_PASSWORD: "${MONGO_PASSWORD}"}
    volumes: ["mongodb:/data/db", "${SECRETS_DIR}/mongo-keyfile:/etc/mongo-keyfile:ro"]
    healthcheck: {test: [CMD, bash, -c, "exec 3<>/dev/tcp/$$HOSTNAME/27017"], interval: 2s, timeout: 5s, retries: 30, start_period: 30s}
`

const hubCompose = Mongod + `  backend:
    image: ${BACKEND_IMAGE}
    init: true
    restart: unless-stopped
    command: [hub]
    environment:
      PORT: "4000"
      NODE_ENV: production
      INSTANCE_CODE: ${INSTANCE_CODE}
      TLS_CERT_FILE: /etc/dive/tls/hub-tls.crt
      TLS_KEY_FILE: /etc/dive/tls/hub-tls.key
      FEDERATION_ADMIN_KEY: ${FEDERATION_ADMIN_KEY}
      MONGODB_URL: ${MONGODB_URL}
      SPOKE_TOKEN_TTL: ${TOKEN_LIFE}
    volumes: ["${SECRETS_DIR}/hub-tls.crt:/etc/dive/tls/hub-tls.crt:ro", "${SECRETS_DIR}/hub-tls.key:/etc/dive/tls/hub-tls.key:ro"]
    ports: ["${BACKEND_PORT}:4000"]
    healthcheck: {test: [CMD, services, healthcheck], interval: 2s, timeout: 5s, retries: 15, start_period: 20s}
volumes:
  mongodb: {}
`
