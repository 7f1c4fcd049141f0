"""Python's ssl with a device's certificate: connects to localhost twice, the second time with the session of the first.

    python3 ssl_check.py PORT CA CERTIFICATE KEY

Prints version, cipher suite and whether the second handshake was resumed. With --any-name the name of the server is not compared, so
that what refuses it is its certificate.
"""

import socket
import ssl
import sys

CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"

any_name = "--any-name" in sys.argv
port, ca, certificate, key = [argument for argument in sys.argv[1:] if argument != "--any-name"]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(ca)
context.load_cert_chain(certificate, key)
context.check_hostname = not any_name


def visit(session):
    with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as plain:
        with context.wrap_socket(plain, server_hostname="localhost", session=session) as secure:
            secure.sendall(CONNECT)
            answer = secure.recv(4)
            assert answer == b"\x20\x02\x00\x00", answer
            return secure.version(), secure.cipher()[0], secure.session, secure.session_reused


version, cipher, session, _ = visit(None)
print(version, cipher)
print("resumed" if visit(session)[3] else "full")
