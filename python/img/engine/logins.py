"""`Logins`: logging in to registries and out of them: verified first, warned of, then kept.

`Engine` makes one for each call. It stays out of the namespace, so a credential helper runs as a child of
this process. No secret leaves it but to the registry, the helper, and the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from img.engine.keychain import helper_runner, keychain
from img.engine.requests import LoginResult, LogoutResult, Settings
from img.errors import RegistryError, Unauthorized, UsageError
from img.progress import Note, Progress
from img.registry import Credentials, Place, Registry
from img.registry.helper import Helper
from img.registry.helper_list import FILES, HelperList
from img.registry.login_file import LoginFile
from img.registry.place import normal
from img.values import replace


class Logins:
    """The operations. `server` is `registry[:port][/namespace]`, and empty for docker.io."""

    def __init__(self, settings: Settings, registry: Callable[[], Registry], progress: Progress) -> None:
        """Reads nothing yet."""
        self._settings = settings
        self._registry = registry
        self._progress = progress

    def login(self, server: str, username: str, password: str, *, file: str = "") -> LoginResult:
        """Shows credentials to a registry, and keeps them where it takes them.

        Args:
            file: The file, in the place of the settings' own: docker's, else the first auth file.
        Raises:
            Unauthorized: the registry does not take them; nothing is stored.
            RegistryError: it cannot be reached, or the credential helper failed.
            UsageError: no file is named, or it is broken, or cannot be written. InvalidReference.
        """
        place = Place.parse(server)
        kept = self._file(file)
        kept.helper(place)  # a broken file is told before the password is shown to anybody
        given = Credentials(username=username, password=password)
        done = self._registry().login(place, given)
        if not done.checked:
            self._warn(f"{place.registry} asked for no credentials, so these were not checked")
        source, program = self._store(place, done.credentials, kept, self._listed(file))
        return LoginResult(
            server=str(place),
            username=username,
            source=source,
            helper=program,
            checked=done.checked,
            identity_token=bool(done.credentials.identity_token),
        )

    def _store(
        self, place: Place, credentials: Credentials, kept: LoginFile, listed: HelperList | None
    ) -> tuple[str, str]:
        """Keeps credentials where they are looked for first; says by which file and helper."""
        refusal: RegistryError | None = None
        for first in listed.before_files() if listed and not place.namespace else ():
            try:
                first.store(str(place), credentials)
            except RegistryError as error:  # some give away what they make, and keep nothing
                refusal = error
            else:
                return listed.where if listed else "", first.program
        if listed and not listed.reads_files:
            raise refusal or UsageError(
                f"{listed.where} lists helpers alone, which keep what is for a whole registry",
                hint=f'log in to {place.registry}, or add "{FILES}" to the list',
            )
        helper = kept.helper(place)
        if helper is None:
            secret = "token" if credentials.identity_token else "password"
            self._warn(
                f"the {secret} will stand in {kept.path}, for whoever can read that file; "
                'a credential helper, named in it as "credsStore", keeps it elsewhere'
            )
        kept.store(place, credentials)
        self._tell(place, _before(self._settings, kept.path), "go before those that were just stored")
        return kept.path, helper.program if helper else ""

    def _listed(self, file: str) -> HelperList | None:
        """The helpers of `registries.conf`, which go with the files that nobody named."""
        settings = self._settings
        if file or not (settings.docker_config and settings.registries_conf):
            return None
        return HelperList(settings.registries_conf, (), run=helper_runner(settings))

    def find(self, server: str) -> LoginResult | None:
        """Says whose credentials are known for a registry, and asks nobody; None where there are none.

        Raises:
            UsageError: a file is broken. RegistryError: a credential helper failed. InvalidReference.
        """
        place = Place.parse(server)
        found, source = self._known(place)
        if found is None:
            return None
        token = bool(found.identity_token)
        return LoginResult(
            server=str(place), username=found.username, source=source, checked=False, identity_token=token
        )

    def verify(self, server: str) -> LoginResult | None:
        """Shows to a registry what is known for it; None where that is nothing, or is not taken.

        Raises:
            RegistryError: it cannot be reached. As `find` otherwise.
        """
        place = Place.parse(server)
        found, source = self._known(place)
        if found is None:
            return None
        try:
            done = self._registry().login(place, found)
        except Unauthorized as error:
            self._warn(f"{error}, which was found in {source}")
            return None
        token = bool(found.identity_token)
        return LoginResult(
            server=str(place), username=found.username, source=source, checked=done.checked,
            identity_token=token,
        )  # fmt: skip

    def logout(self, server: str, *, file: str = "") -> LogoutResult:
        """Forgets what is kept for a registry. Doing it twice is no error.

        Args:
            file: As `login` takes it.
        Raises:
            UsageError: the file is broken, or cannot be written. RegistryError: the credential helper failed.
            InvalidReference.
        """
        place = Place.parse(server)
        kept = self._file(file)
        removed = kept.erase(place)
        for helper in self._helpers(file) if not place.namespace else ():
            with self._told():
                removed |= any([helper.erase(name) for name in dict.fromkeys((str(place), place.key))])
        self._tell(place, _without(self._settings, kept.path), "still open it")
        return LogoutResult(server=str(place), file=kept.path, removed=removed)

    def logout_all(self, *, file: str = "") -> list[LogoutResult]:
        """Forgets every registry that the file or a helper that it names has credentials for.

        Raises:
            As `logout`.
        """
        kept = self._file(file)
        known = set(kept.erase_all())
        for helper in self._helpers(file):
            with self._told():
                known.update(normal(server) for server in helper.list() if helper.erase(server))
        return [LogoutResult(server=name, file=kept.path, removed=True) for name in sorted(known)]

    def _helpers(self, file: str) -> list[Helper]:
        listed = self._listed(file)
        return listed.helpers() if listed else []

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns the failure of one helper into a warning: one that cannot forget hinders no other."""
        try:
            yield
        except RegistryError as error:
            self._warn(str(error))

    def _file(self, file: str) -> LoginFile:
        settings = self._settings
        path = file or settings.docker_config or next(iter(settings.auth_files), "")
        if not path:
            raise UsageError("no file is named that keeps credentials", hint="name one, or docker's config")
        return LoginFile(path, run=helper_runner(settings))

    def _known(self, place: Place, settings: Settings | None = None) -> tuple[Credentials | None, str]:
        chain = keychain(settings or self._settings, self._progress)
        if chain is None:
            return None, ""
        # A repository below the place: what is kept for the place itself, or for more than it.
        repository = place.namespace or "-"
        return chain.get(place.registry, repository), chain.source_of(place.registry, repository)

    def _tell(self, place: Place, others: Settings, what: str) -> None:
        """Warns where credentials are found in other places than the file that was changed."""
        try:
            found, source = self._known(place, others)
        except (UsageError, RegistryError) as error:
            self._warn(str(error))  # what was asked for is done, and the next command says it again
            return
        if found:
            self._warn(f"other credentials for {place}, in {source}, {what}")

    def _warn(self, text: str) -> None:
        self._progress(Note(level="warning", text=text))


def _without(settings: Settings, path: str) -> Settings:
    """The settings with every source of credentials but one file."""
    files = tuple(file for file in settings.auth_files if file != path)
    docker = "" if settings.docker_config == path else settings.docker_config
    return replace(settings, auth_files=files, docker_config=docker)


def _before(settings: Settings, path: str) -> Settings:
    """The settings with the sources of credentials that go before a file; those of no file among them."""
    files = settings.auth_files
    if path in files:
        files = files[: files.index(path)]
    elif path != settings.docker_config:
        files = ()  # nobody looks into it but with a flag, which then goes before all files
    return replace(settings, auth_files=files, docker_config="", registries_conf=())
