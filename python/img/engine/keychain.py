"""`keychain`: what the settings say of credentials, put together in the order in which it counts.

What was given for this command goes first, then the text of a config, then the files, among which
`registries.conf` may put helpers. A source that has nothing for a repository leaves it to the next.
"""

from __future__ import annotations

from collections.abc import Sequence

from img import _core
from img.engine.requests import Settings
from img.errors import UsageError
from img.progress import Note, Progress
from img.registry import Chain, ConfigFile, ConfigText, Credentials, Given, Keychain, Place
from img.registry.helper import SECONDS, TOO_LATE, Runner
from img.registry.helper_list import HelperList

AUTH_CONFIG = "DOCKER_AUTH_CONFIG"
"""What people know a config's text by."""


def keychain(settings: Settings, progress: Progress) -> Chain | None:
    """Makes the keychain of an engine; None where the settings name no source.

    Raises:
        InvalidReference: credentials were given for what is no registry.
    """
    sources: list[Keychain] = []
    if settings.credentials:
        sources.append(Given({Place.parse(name): _pair(pair) for name, pair in settings.credentials.items()}))
    run = helper_runner(settings)
    if settings.auth_config:
        sources.append(ConfigText(settings.auth_config, AUTH_CONFIG, run=run))

    def warn(text: str) -> None:
        progress(Note(level="warning", text=text))

    paths = filter(None, (*settings.auth_files, settings.docker_config))
    files = [ConfigFile(path, run=run, warn=warn) for path in paths]
    if not settings.registries_conf:
        sources += files
    elif settings.docker_config:
        sources.append(HelperList(settings.registries_conf, files, run=run))
    else:  # files that were named are asked, whatever a list says
        sources += [*files, HelperList(settings.registries_conf, (), run=run)]
    return Chain(sources) if sources else None


def helper_runner(settings: Settings) -> Runner:
    """How helpers are run: outside the namespace, as the real user, with no terminal.

    Such a program inherits no proxies; it has those of the settings, since some helpers speak to a cloud.
    """
    env = [(f"{scheme}_proxy", url) for scheme, url in settings.proxies.items()]
    if env and settings.no_proxy:
        env.append(("no_proxy", ",".join(settings.no_proxy)))

    def run(command: Sequence[str], given: bytes) -> tuple[int, bytes]:
        try:
            code, output, _ = _core.run_outside(command, env=env, cwd="/", stdin=given, seconds=SECONDS)
        except TimeoutError as error:
            raise TimeoutError(0, TOO_LATE) from error
        return code, output

    return run


def _pair(pair: object) -> Credentials:
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(t, str) for t in pair):
        raise UsageError("credentials are a user name and a password")
    return Credentials(username=pair[0], password=pair[1])
