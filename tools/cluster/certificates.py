"""Certificates for TLS between brokers, made as README.md says."""

import os
import subprocess

NEW = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "30"]


class Authority:
    """Who signs the certificates of a cluster."""

    def __init__(self, directory, cluster_id):
        self._directory, self._cluster_id = directory, cluster_id
        os.makedirs(directory)
        self.ca = self._path("ca.pem")
        make("-subj", f"/CN={os.path.basename(directory)}", "-keyout", self._path("ca.key"), "-out", self.ca)

    def settings(self, node):
        """The keys of a broker's configuration file, and their values."""
        certificate, key = self._path(f"node-{node}.pem"), self._path(f"node-{node}.key")
        if not os.path.exists(certificate):
            name = f"node-{node}.{self._cluster_id}.tailrace"
            make("-subj", f"/CN=node-{node}", "-CA", self.ca, "-CAkey", self._path("ca.key"), "-keyout", key,
                 "-out", certificate, "-addext", f"subjectAltName=DNS:{name}", "-addext",
                 "basicConstraints=CA:FALSE", "-addext", "extendedKeyUsage=serverAuth,clientAuth")
        return {"peer-tls-certificate": certificate, "peer-tls-key": key, "peer-tls-ca": self.ca}

    def _path(self, name):
        return os.path.join(self._directory, name)


def make(*arguments):
    subprocess.run([*NEW, *arguments], check=True, capture_output=True)


def with_settings(text, settings):
    """A configuration file with these settings instead of those that it has, before its tables."""
    kept = [line for line in text.splitlines() if line.split(" =")[0] not in settings]
    return "\n".join([*(f'{key} = "{value}"' for key, value in settings.items()), *kept]) + "\n"
