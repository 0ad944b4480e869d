"""`connect`: a boto3 client for S3, made of a spec and of what the caller knows of its environment.

The one module that imports boto3; loaded with the first request. Called by `s3`. boto3 looks for credentials
in the order that it documents, but takes variables from `Reach`, not from the process.
Source: boto3's documentation, "Credentials" and "Configuration".
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
import certifi
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES, ConfigChainFactory
from botocore.credentials import AssumeRoleWithWebIdentityProvider, ContainerProvider, EnvProvider
from botocore.exceptions import ConfigParseError, InvalidConfigError, InvalidRegionError, ProfileNotFound
from urllib3.util import SKIP_HEADER

from img.cache.attributes import count, flag
from img.cache.backend import Reach
from img.cache.patience import Limits
from img.cache.spec import CacheSpec
from img.errors import CacheError
from img.remote.reach import Reach as WebReach

_WEB_IDENTITY = {
    "role_arn": "AWS_ROLE_ARN",
    "web_identity_token_file": "AWS_WEB_IDENTITY_TOKEN_FILE",
    "role_session_name": "AWS_ROLE_SESSION_NAME",
}


class Connection:
    """A client, and the file that it needs as long as it is used.

    Attributes:
        client: boto3's client for S3; may be used by several threads.
    """

    def __init__(self, spec: CacheSpec, reach: Reach, limits: Limits) -> None:
        """Prepares the client; nothing is asked of the store.

        Raises:
            CacheError: a profile, an endpoint or the CA file makes no sense: `ignore-error` is for that, too,
                since a machine may have another profile than the one where the command was written.
            botocore's errors: what the machine or a service should know of credentials could not be had.
        """
        variables, attributes = reach.variables, spec.attributes
        self._bundle = _bundle(spec, variables.get("AWS_CA_BUNDLE", "") or reach.ca_file)
        region = (
            attributes.get("region") or variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION")
        )
        endpoint = (
            attributes.get("endpoint_url")
            or variables.get("AWS_ENDPOINT_URL_S3")
            or variables.get("AWS_ENDPOINT_URL")
        )
        try:
            session = _session(variables, region)
            self.client: Any = boto3.session.Session(botocore_session=session).client(
                "s3",
                region_name=region,
                endpoint_url=endpoint,
                aws_access_key_id=attributes.get("access_key_id"),
                aws_secret_access_key=attributes.get("secret_access_key"),
                aws_session_token=attributes.get("session_token"),
                verify=self._bundle,
                config=_config(spec, reach, endpoint or "https://s3.amazonaws.com", limits),
            )
        except (
            ConfigParseError,
            InvalidConfigError,
            InvalidRegionError,
            ProfileNotFound,
            ValueError,
        ) as error:
            self.close()
            raise CacheError(str(spec), str(error)) from error
        except BaseException:  # credentials that could not be fetched, say
            self.close()
            raise
        if flag(spec, "disable_accept_encoding"):
            self.client.meta.events.register("before-send.s3", _without_accept_encoding)

    def close(self) -> None:
        """Closes connections, and removes the file; safe to call twice."""
        if hasattr(self, "client"):
            self.client.close()
        if self._bundle:
            try:
                os.unlink(self._bundle)
            except FileNotFoundError:
                pass  # the second call


def _config(spec: CacheSpec, reach: Reach, endpoint: str, limits: Limits) -> Config:
    style = "path" if flag(spec, "use_path_style") else "auto"
    retries: dict[str, Any] = {}
    if mode := spec.attributes.get("retry_mode"):
        retries["mode"] = mode
    if attempts := count(spec, "retry_max_attempts", 0, least=0):
        retries["total_max_attempts"] = attempts
    options: dict[str, Any] = {
        "connect_timeout": limits.connect_seconds,
        "read_timeout": limits.read_seconds,
        "max_pool_connections": 32,
        "s3": {"addressing_style": style},
        "proxies": _proxies(reach, endpoint),
        "user_agent_extra": "img",
    }
    if retries:
        options["retries"] = retries
    # What comes is verified by its digest; other people's servers do not all know the newer checksums.
    for name in ("request_checksum_calculation", "response_checksum_validation"):
        if name in Config.OPTION_DEFAULTS:
            options[name] = "when_required"
    return Config(**options)


def _proxies(reach: Reach, endpoint: str) -> dict[str, str]:
    """The proxies for an endpoint; empty, and not None, so that boto3 does not look for others."""
    return WebReach(proxies=reach.proxies, no_proxy=reach.no_proxy).proxies_for(endpoint)


def _session(variables: Mapping[str, str], region: str | None) -> botocore.session.Session:
    """A session that takes variables from a mapping."""
    session = botocore.session.Session()
    store = session.get_component("config_store")
    chains = ConfigChainFactory(session=session, environ=variables)
    for name, (option, variable, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items():
        chain = chains.create_config_chain(
            instance_name=name,
            env_var_names=variable,
            config_property_names=option,
            default=default,
            conversion_func=convert,
        )
        store.set_config_provider(name, chain)
    resolver = session.get_component("credential_provider")
    own = {
        "env": EnvProvider(environ=variables),
        "container-role": ContainerProvider(environ=variables),
        "assume-role-with-web-identity": _web_identity(session, variables, region),
    }
    resolver.providers = [own.get(provider.METHOD, provider) for provider in resolver.providers]
    return session


def _web_identity(
    session: botocore.session.Session, variables: Mapping[str, str], region: str | None
) -> AssumeRoleWithWebIdentityProvider:
    """The role that a token in a file stands for, as in pods and in jobs that know OpenID."""
    profile = session.get_config_variable("profile") or "default"
    told = {option: variables[name] for option, name in _WEB_IDENTITY.items() if variables.get(name)}

    def load() -> dict[str, Any]:
        if "web_identity_token_file" in told:
            return {"profiles": {profile: told}}
        config: dict[str, Any] = session.full_config
        return config

    def create(service: str, **options: Any) -> Any:
        return session.create_client(service, **{"region_name": region, **options})

    return AssumeRoleWithWebIdentityProvider(
        load_config=load, client_creator=create, profile_name=profile, disable_env_vars=True
    )


def _bundle(spec: CacheSpec, ca_file: str) -> str | None:
    """A file with the usual authorities and those of `ca_file`; None where there are no further ones.

    boto3 trusts one file alone.

    Raises:
        CacheError: it cannot be read.
    """
    if not ca_file:
        return None
    usual = [certifi.where(), ssl.get_default_verify_paths().cafile or ""]
    try:
        texts = [open(ca_file, "rb").read()]  # noqa: SIM115
        texts += [open(path, "rb").read() for path in usual if path and os.path.exists(path)]  # noqa: SIM115
    except OSError as error:
        raise CacheError(str(spec), f"cannot use the CA file {ca_file}: {error.strerror}") from error
    with tempfile.NamedTemporaryFile(prefix="img-ca-", suffix=".pem", delete=False) as file:
        file.write(b"\n".join(texts))
    return file.name


def _without_accept_encoding(request: Any, **_: Any) -> None:
    """Leaves out a header that some proxies and other people's stores change, which breaks the signature."""
    request.headers["Accept-Encoding"] = SKIP_HEADER


def shown_endpoint(client: Any) -> str:
    """Host and port that a client speaks to, for errors."""
    return str(urlsplit(client.meta.endpoint_url).netloc.rpartition("@")[2])
