"""Bad files for TLS between brokers: each is named, with what is wrong with it."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTDATA = os.path.normpath(os.path.join(HERE, "../../broker/testdata/tls"))
sys.path.insert(1, os.path.join(HERE, "../cluster"))

from certificates import Authority, with_settings

from world import Refusal, free_port

CLUSTER_ID = "0190f1a0-0000-4000-8000-000000000001"
CERTIFICATE, KEY, CA = "peer-tls-certificate", "peer-tls-key", "peer-tls-ca"


class Member:
    """The configuration of a broker of a cluster, right at first."""

    def __init__(self, world):
        self._world = world
        self.authority = Authority(world.path("authority"), CLUSTER_ID)
        self.settings = self.authority.settings(1)

    def refused(self, *words, **changed):
        """What it says when it starts with some of the files changed."""
        changed = {f"peer-tls-{key}": value for key, value in changed.items()}
        settings = {key: value for key, value in {**self.settings, **changed}.items() if value}
        nodes = ", ".join(f'"{node}@127.0.0.1:{free_port()}"' for node in range(3))
        text = with_settings(f'data-dir = "{self._world.path("never-made")}"\n'
                             f'listen = "127.0.0.1:{free_port()}"\nadmin = "127.0.0.1:{free_port()}"\n'
                             f'node-id = 1\ncluster-id = "{CLUSTER_ID}"\nnodes = [{nodes}]\n', settings)
        config = self.file("broker.toml", text)
        command = [self._world.binary, "broker", "--config", config, "--new-cluster"]
        line = Refusal(command).check(*words)
        assert not os.path.exists(self._world.path("never-made")), "data were made before"
        return line

    def file(self, name, text):
        path = self._world.path(name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def changed(self, key, change):
        """A file with the text of another, changed."""
        with open(self.settings[key], encoding="utf-8") as file:
            return self.file("changed.pem", change(file.read()))


def peer_tls_incomplete(world):
    member = Member(world)
    member.refused("peer-tls-certificate", "or none", certificate=None)
    member.refused("peer-tls-ca", "or none", ca=None)
    return member.refused("peer-tls-key", "or none", key=None)


def peer_tls_unreadable(world):
    member = Member(world)
    member.refused(KEY, "cannot read", key=world.path("absent"))
    member.refused(CA, "cannot read", ca=world.directory)
    return member.refused(CERTIFICATE, "cannot read", certificate=world.path("absent"))


def peer_tls_damaged(world):
    member = Member(world)
    member.refused(CA, "no certificate", ca=member.file("empty.pem", ""))
    member.refused(KEY, "no private key", key=member.settings[CERTIFICATE])
    member.refused(CERTIFICATE, "has no end",
                   certificate=member.changed(CERTIFICATE, lambda text: text[:len(text) // 2]))
    member.refused(CERTIFICATE, "base64",
                   certificate=member.changed(CERTIFICATE, lambda text: text.replace("MII", "M-I", 1)))
    member.refused(CERTIFICATE, "no certificate", certificate="/dev/zero")
    return member.refused(KEY, "not understood", key=member.changed(KEY, lambda text: text.replace("MIG", "MIM", 1)))


def peer_tls_of_another(world):
    member = Member(world)
    other = member.authority.settings(2)
    strangers = Authority(world.path("strangers"), CLUSTER_ID).settings(1)
    member.refused(KEY, "not the key", key=other[KEY])
    member.refused(CERTIFICATE, "no authority", ca=strangers[CA])
    return member.refused(CERTIFICATE, "is of", f"node-2.{CLUSTER_ID}", "node-1.",
                          certificate=other[CERTIFICATE], key=other[KEY])


def peer_tls_expired(world):
    """Of the unit tests, since openssl makes none on request. Its date is looked at before its name."""
    path = {key: os.path.join(TESTDATA, name) for key, name in
            (("certificate", "expired-2.pem"), ("key", "node-2.key"), ("ca", "ca.pem"))}
    return Member(world).refused(CERTIFICATE, "expired", "valid now", **path)


CASES = [peer_tls_incomplete, peer_tls_unreadable, peer_tls_damaged, peer_tls_of_another, peer_tls_expired]
