"""Amazon S3 on loopback: moto's server, with buckets in memory."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

ACCESS_KEY, SECRET_KEY = "AKIATESTACCESSKEY000", "s3cretOfTheTests"


class S3:
    """The server; a context manager.

    Attributes:
        url: Where it answers.
        port: Of that address.
    """

    def __enter__(self) -> S3:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, self.port = self._server.get_host_and_port()
        self.url = f"http://{host}:{self.port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    def client(self) -> Any:
        """A client of boto3's own, to look behind the back of the program under test."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def make_bucket(self, name: str) -> str:
        """Makes a bucket; gives its name."""
        self.client().create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str) -> list[str]:
        """The names of all objects, sorted."""
        answer = self.client().list_objects_v2(Bucket=bucket)
        return sorted(entry["Key"] for entry in answer.get("Contents", ()))
