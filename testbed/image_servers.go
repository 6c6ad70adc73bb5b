package testbed

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:embed entrypoints/postgres.sh
var postgresEntrypoint string

//go:embed entrypoints/redis.sh
var redisEntrypoint string

//go:embed opal-requirements.txt
var opalRequirements string

// postgres is the PostgreSQL of the base image with an entrypoint like the official image's.
func postgres(context.Context, Progress) (material, error) {
	return material{
		inline: map[string]string{"docker-entrypoint.sh": postgresEntrypoint},
		dockerfile: `COPY docker-entrypoint.sh /usr/local/bin/
RUN rm -rf /var/lib/postgresql/15 && install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data \
 && install -d -o postgres -g postgres /run/postgresql && mkdir -p /docker-entrypoint-initdb.d
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
`,
	}, nil
}

// redis is the Redis of the base image with an entrypoint like the official image's.
func redis(context.Context, Progress) (material, error) {
	return material{
		inline: map[string]string{"docker-entrypoint.sh": redisEntrypoint},
		dockerfile: `COPY docker-entrypoint.sh /usr/local/bin/
RUN install -d -o redis -g redis /data
VOLUME /data
WORKDIR /data
EXPOSE 6379
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
`,
	}, nil
}

const keycloakPOM = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>testbed</groupId>
  <artifactId>download</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
</project>
`

// keycloak is the server's distribution, built for PostgreSQL with health and metrics on. The JVM is set for a quick
// start and a small heap: a test bed runs several.
func keycloak(version string) func(context.Context, Progress) (material, error) {
	return func(context.Context, Progress) (material, error) {
		return material{
			digest: digest(version),
			dockerfile: `ADD keycloak.tar.gz /opt/
RUN mv /opt/keycloak-` + version + ` /opt/keycloak && useradd --uid 1000 --gid 0 --home-dir /opt/keycloak keycloak \
 && JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1 /opt/keycloak/bin/kc.sh build --db=postgres --health-enabled=true --metrics-enabled=true \
 && rm -rf /opt/keycloak/data/tmp && mkdir -p /opt/keycloak/data && chown -R keycloak /opt/keycloak/data /opt/keycloak/conf /opt/keycloak/lib/quarkus
ENV JAVA_OPTS_KC_HEAP="-Xms64m -Xmx640m" JAVA_OPTS_APPEND="-XX:-UseG1GC -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
USER 1000
WORKDIR /opt/keycloak
EXPOSE 8080 8443 9000
ENTRYPOINT ["/opt/keycloak/bin/kc.sh"]
`,
			fill: func(ctx context.Context, say Progress) (string, map[string]string, error) {
				dist, err := cached(ctx, "keycloak-"+version+".tar.gz", func(ctx context.Context, path string) error {
					say("mvn dependency:copy keycloak-quarkus-dist %s (159 MB)", version)
					return mavenCopy(ctx, "org.keycloak:keycloak-quarkus-dist:"+version+":tar.gz", path)
				})
				return "", map[string]string{"keycloak.tar.gz": dist}, err
			},
		}, nil
	}
}

// mavenCopy downloads one artifact to dest.
func mavenCopy(ctx context.Context, artifact, dest string) error {
	dir, err := os.MkdirTemp(filepath.Dir(dest), "maven-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.WriteFile(filepath.Join(dir, "pom.xml"), []byte(keycloakPOM), 0o644); err != nil {
		return err
	}
	_, err = command{dir: dir, name: "mvn", args: []string{
		"-B", "-q", "-ntp", "dependency:copy", "-Dartifact=" + artifact, "-DoutputDirectory=" + filepath.Join(dir, "out"),
	}}.run(ctx)
	if err != nil {
		return fmt.Errorf("get %s by Maven: %w", artifact, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "out", "*"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("maven left %d files for %s, not one", len(found), artifact)
	}
	return os.Rename(found[0], dest)
}

// opa is the real server, built from the Go module.
func opa(version string) func(context.Context, Progress) (material, error) {
	return func(context.Context, Progress) (material, error) {
		return material{
			digest: digest(version),
			dockerfile: `COPY opa /usr/local/bin/opa
RUN useradd --uid 1000 opa && opa version
USER 1000
EXPOSE 8181
ENTRYPOINT ["opa"]
CMD ["run"]
`,
			fill: func(ctx context.Context, say Progress) (string, map[string]string, error) {
				bin, err := goInstall(ctx, say, "github.com/open-policy-agent/opa", "v"+version, "opa")
				return "", map[string]string{"opa": bin}, err
			},
		}, nil
	}
}

// opal is OPAL's server or client with the exact packages of opal-requirements.txt, on the base image's Python.
func opal(program, port string) func(context.Context, Progress) (material, error) {
	return func(context.Context, Progress) (material, error) {
		return material{
			digest: digest(opalRequirements, program),
			dockerfile: `COPY opal /opt/opal
ENV PYTHONPATH=/opt/opal PATH=/opt/opal/bin:/usr/local/bin:/usr/sbin:/usr/bin:/bin
RUN useradd --uid 1000 --create-home opal && ` + program + ` --help >/dev/null
USER 1000
WORKDIR /home/opal
EXPOSE ` + port + `
ENTRYPOINT ["` + program + `"]
CMD ["run"]
`,
			fill: func(ctx context.Context, say Progress) (string, map[string]string, error) {
				dir, err := opalPackages(ctx, say)
				return "", map[string]string{"opal": dir}, err
			},
		}, nil
	}
}

// opalPackages installs OPAL and what it needs into one folder, from wheels alone, for the Python of the base image.
func opalPackages(ctx context.Context, say Progress) (string, error) {
	return cached(ctx, "opal-"+digest(opalRequirements, "1"), func(ctx context.Context, path string) error {
		say("pip install OPAL (%d packages)", strings.Count(opalRequirements, "\n"))
		list := path + ".txt"
		if err := os.WriteFile(list, []byte(opalRequirements), 0o644); err != nil {
			return err
		}
		defer func() { _ = os.Remove(list) }()
		_, err := command{name: python(), args: []string{
			"-m", "pip", "install", "--quiet", "--no-input", "--no-deps", "--only-binary=:all:", "--no-compile",
			"--python-version", "3.11", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64",
			"--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64", "--platform", "manylinux_2_12_x86_64",
			"--platform", "manylinux2010_x86_64", "--platform", "manylinux_2_5_x86_64", "--platform", "manylinux1_x86_64",
			"--target", path, "-r", list,
		}}.run(ctx)
		if err != nil {
			return fmt.Errorf("install OPAL: %w", err)
		}
		return scriptsForDebian(filepath.Join(path, "bin"))
	})
}

// scriptsForDebian makes the programs that pip wrote for this machine's Python run with Debian's.
func scriptsForDebian(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		first, rest, ok := strings.Cut(string(raw), "\n")
		if !ok || !strings.HasPrefix(first, "#!") || !strings.Contains(first, "python") {
			continue
		}
		if err := os.WriteFile(path, []byte("#!/usr/bin/python3\n"+rest), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// services is the application's backend, kas and frontend: one static program on nothing but certificates.
func services(ctx context.Context, _ Progress) (material, error) {
	bin, err := goBinary(ctx, "./testbed/services")
	if err != nil {
		return material{}, err
	}
	sum, err := digestFiles(bin)
	if err != nil {
		return material{}, err
	}
	certificates, err := hostCertificates()
	if err != nil {
		return material{}, err
	}
	return material{
		digest: sum,
		files:  map[string]string{"services": bin, "ca-certificates.crt": certificates},
		inline: map[string]string{"passwd": "root:x:0:0::/:\nservices:x:1000:1000::/:\n"},
		dockerfile: `COPY services /usr/local/bin/services
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY passwd /etc/passwd
ENV PATH=/usr/local/bin
USER 1000
ENTRYPOINT ["services"]
`,
	}, nil
}

func hostCertificates() (string, error) {
	for _, path := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("this machine has no bundle of certificates: install ca-certificates")
}

// systemd is a Debian that boots: for the agent's unit. Run it with stop signal SIGRTMIN+3.
func systemd(ctx context.Context, say Progress) (material, error) {
	m, err := debian("bookworm", "systemd", "systemd-sysv", "dbus", "iproute2", "procps")(ctx, say)
	m.changes = append(m.changes, `CMD ["/sbin/init"]`, "ENV container=docker")
	return m, err
}
