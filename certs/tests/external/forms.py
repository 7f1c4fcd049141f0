"""Reads certificates and keys in the form named by the first argument; fails where the pair does not fit."""

import base64
import csv
import ssl
import sys

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key, pkcs12


def fits(certificate, key):
    assert certificate.public_key() == key.public_key()
    assert 0 < certificate.serial_number < 1 << 128


def read(path):
    with open(path, "rb") as file:
        return file.read()


def p12(path, password, name):
    password = read(password).splitlines()[0]
    store = pkcs12.load_pkcs12(read(path), password)
    fits(store.cert.certificate, store.key)
    assert store.cert.certificate.subject.rfc4514_string() == "CN=" + name
    assert len(store.additional_certs) == 1
    store.cert.certificate.verify_directly_issued_by(store.additional_certs[0].certificate)


def der(certificate, key):
    fits(x509.load_der_x509_certificate(read(certificate)), load_der_private_key(read(key), None))


def nvs(path, name, ca):
    with open(path, newline="") as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    assert rows["mqtt"]["type"] == "namespace" and all(len(key) <= 15 for key in rows)
    assert rows["client_id"]["value"] == name
    ca_cert, certificate, key = (base64.b64decode(rows[key]["value"]) for key in ("ca_cert", "cert", "key"))
    assert x509.load_der_x509_certificate(ca_cert) == x509.load_pem_x509_certificate(read(ca))
    fits(x509.load_der_x509_certificate(certificate), load_der_private_key(key, None))


def connect(root, ca, server, device):
    here = ssl.create_default_context(cafile=root)
    here.verify_flags |= ssl.VERIFY_X509_STRICT
    here.load_cert_chain(device + ".crt", device + ".key")
    there = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    there.verify_mode = ssl.CERT_REQUIRED
    there.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    there.load_cert_chain(server + ".crt", server + ".key")
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = here.wrap_bio(down, up, server_hostname="localhost")
    broker = there.wrap_bio(up, down, server_side=True)
    for _ in range(5):
        for side in client, broker:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    assert client.version() == broker.version() == "TLSv1.3"
    assert broker.getpeercert()["subject"]


globals()[sys.argv[1]](*sys.argv[2:])
