"""Which settings somebody reads: the handler, by its source, and the host, by the list below."""

import re

from conftest import ROOT

# By the host: where it says so, or how it is known.
HOST = {
    "AzureFunctionsJobHost__Logging__Console__IsEnabled": "without it a container's log is empty",
    "AzureFunctionsJobHost__fileWatchingEnabled": "host.json's fileWatchingEnabled",
    "AzureFunctionsWebHost__hostid": "one name for all Deployments, below which the timer's lock is",
    "AzureWebJobsDisableHomepage": "GET / answers 204",
    "AzureWebJobsScriptRoot": "where host.json is",
    "AzureWebJobsSecretStorageKeyVaultClientId": "the identity for the key vault",
    "AzureWebJobsSecretStorageKeyVaultUri": "the key vault with the function keys",
    "AzureWebJobsSecretStorageType": "where function keys are",
    "AzureWebJobsStorage__clientId": "the identity for the storage account",
    "AzureWebJobsStorage__credential": "the identity for the storage account",
    "ASPNETCORE_URLS": "what Kestrel listens on",
    "FUNCTIONS_WORKER_RUNTIME": "a custom handler",
    "HOME": "where .NET keeps what it writes",
    "ServiceBusConnection__clientId": "the trigger's identity",
    "ServiceBusConnection__credential": "the trigger's identity",
}

SOURCE = "\n".join(path.read_text() for path in sorted((ROOT / "src").glob("*.rs")))


def is_read(name: str) -> bool:
    """Whether the host reads it, or its name is a string of the handler's source: whole, or a connection and `__` what of it."""
    if name in HOST:
        return True
    connection, _, suffix = name.partition("__")
    if suffix:
        return f'"{connection}"' in SOURCE and re.search(rf'[}}"]__{suffix}"|"{name}"', SOURCE) is not None
    return f'"{name}"' in SOURCE
