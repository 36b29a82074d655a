"""moto's S3 server, with two things that S3 does and moto does not: conditional writes are made one after
the other (moto looks whether a condition holds and then writes, and another thread may write in
between), and a body that is not as its checksum says is refused."""

import base64
import io
import sys
import threading
import zlib

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BAD_DIGEST = (b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>BadDigest</Code><Message>The CRC32 you '
              b"specified did not match the calculated checksum.</Message></Error>")


class OneConditionAtATime:
    def __init__(self, application):
        self.application = application
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        if "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ:
            with self.lock:
                return self.application(environ, start_response)
        return self.application(environ, start_response)


class CheckedBodies:
    """Of clients that send the checksum ahead of the body, as AWS's SDKs do for what is in memory."""

    def __init__(self, application):
        self.application = application

    def __call__(self, environ, start_response):
        checksum = environ.get("HTTP_X_AMZ_CHECKSUM_CRC32")
        if checksum and environ["REQUEST_METHOD"] == "PUT":
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            if base64.b64decode(checksum) != zlib.crc32(body).to_bytes(4, "big"):
                start_response("400 Bad Request", [("Content-Type", "application/xml"),
                                                   ("Content-Length", str(len(BAD_DIGEST)))])
                return [BAD_DIGEST]
            environ["wsgi.input"] = io.BytesIO(body)
        return self.application(environ, start_response)


application = CheckedBodies(OneConditionAtATime(DomainDispatcherApplication(create_backend_app)))
server = make_server("127.0.0.1", 0, application, threaded=True)
print(f"at http://127.0.0.1:{server.port}", flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    sys.exit(0)
