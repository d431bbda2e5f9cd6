"""Azurite (npm): Microsoft's own stand-in for the Blob service of a storage account."""

from server_process import MODULES

# It would report its use to its makers.
COMMAND = [
    "node", str(MODULES / "azurite/dist/src/blob/main.js"),
    "--silent", "--disableTelemetry", "--blobHost", "127.0.0.1",
]  # fmt: skip
