"""`Client`, and the one-shot functions `build`, `pull`, `push`: the library's front door.

A client never changes its caller's process: whatever touches layers runs in a worker process
(`img.worker`) whose events arrive at `progress`, in the calling thread. Several threads may use
one client at once; each call has a worker of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from img.dockerfile import Finding
from img.engine import (
    Backend,
    BuildRequest,
    BuildResult,
    BuiltImage,
    Compression,
    Engine,
    Explained,
    LockMode,
    LockResult,
    LoginResult,
    ManifestFormat,
    PruneResult,
    PullPolicy,
    PullResult,
    Settings,
    Usage,
)
from img.engine.requests import epoch_of
from img.errors import ImgError, UsageError, from_fields
from img.oci import Descriptor, Image, Index, Manifest
from img.progress import Note, Progress, from_json, silent
from img.store import BuildRow, Store
from img.values import asdict, replace

if TYPE_CHECKING:
    from img.builder.graph import BuildGraph
    from img.builder.outline import Outline, Target
    from img.engine.artifacts import Artifact
    from img.engine.copying import CopyResult
    from img.engine.lists import EntryChange
    from img.engine.mount_verbs import CacheMount
    from img.engine.referring import Referrer
    from img.engine.remote_names import Deleted
    from img.store.build_record import BuildRecord
    from img.store.check import StoreReport


class Client:
    """The operations of `img` over one store. Use it in a `with` block, or `close` it."""

    def __init__(
        self,
        state: str | os.PathLike[str] | None = None,
        *,
        progress: Progress = silent,
        docker_config: str | os.PathLike[str] = "",
        auth_files: Sequence[str | os.PathLike[str]] = (),
        credentials: Mapping[str, tuple[str, str]] | None = None,
        plain_http: Sequence[str] = (),
        jobs: int = 0,
        backend: Backend = "auto",
        proxies: Mapping[str, str] | None = None,
        no_proxy: Sequence[str] = (),
        ca_file: str | os.PathLike[str] = "",
        insecure: Sequence[str] = (),
        cert_dirs: Sequence[str | os.PathLike[str]] = (),
        mirrors: Sequence[str] = (),
        registries_conf: Sequence[str | os.PathLike[str]] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Prepares; opens nothing.

        Args:
            state: Root of the store. Default: `~/.local/share/img`.
            progress: Takes events, in the thread that made the call.
            docker_config: Path of docker's `config.json`, for credentials; by default there are none.
            auth_files: Files of its form, such as podman's `auth.json`, that are asked before it, in order.
            credentials: User name and password by registry, or by `registry/namespace`, which go before
                those of any file, and to nobody else.
            plain_http: Registries (`host[:port]`) to speak to without TLS, loopback aside.
            jobs: Steps and transfers at once; 0 means as many as there are processors.
            backend: How steps get their roots: `overlay`, `native` (copies), or what this machine allows.
            proxies: Proxy URL by scheme (`http`, `https`); by default there are none.
            no_proxy: Hosts and domain suffixes that are reached directly. Loopback always is.
            ca_file: PEM file of further certificate authorities.
            insecure: Registries (`host[:port]`, a network such as `10.0.0.0/8`, or `*`) whose certificate is
                not verified, and which may be spoken to without TLS.
            cert_dirs: Folders laid out as `certs.d`: `HOST[:PORT]/*.crt`, `*.cert` with `*.key`.
            mirrors: `HOST=MIRROR` each: a mirror that is asked before the registry.
            registries_conf: Files and folders in the format of containers' `registries.conf`; a later
                one wins. The credential helpers that they list are asked after `auth_files`; where there is
                a `docker_config`, both are files that the list says when to ask, or not to.
            variables: What shared caches look for in an environment (`AWS_ACCESS_KEY_ID`,
                `ACTIONS_RUNTIME_TOKEN`, …), by name; by default nothing.
        """
        root = Path(state) if state is not None else Path.home() / ".local" / "share" / "img"
        self._settings = Settings(
            state=str(root.absolute()),
            docker_config=str(docker_config),
            auth_files=tuple(os.path.abspath(path) for path in auth_files),
            credentials=dict(credentials or {}),
            plain_http=tuple(plain_http),
            jobs=jobs,
            backend=backend,
            proxies=dict(proxies or {}),
            no_proxy=tuple(no_proxy),
            ca_file=str(ca_file),
            insecure=tuple(insecure),
            cert_dirs=tuple(map(str, cert_dirs)),
            mirrors=tuple(mirrors),
            registries_conf=tuple(map(str, registries_conf)),
            variables=dict(variables or {}),
        )
        self._progress = progress
        self._store: Store | None = None

    # ---- operations --------------------------------------------------------------------------

    def build(
        self,
        context: str | os.PathLike[str] = ".",
        *,
        tag: str | Sequence[str] = (),
        dockerfile: str | os.PathLike[str] = "",
        build_args: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        target: str | Sequence[str] = (),
        platform: str | Sequence[str] = (),
        pull: PullPolicy = "missing",
        no_cache: bool = False,
        push: bool = False,
        compression: Compression | None = None,
        compression_level: int | None = None,
        force_compression: bool = False,
        annotations: Sequence[str] = (),
        epoch: int | None = None,
        contexts: Mapping[str, str] | None = None,
        secrets: Mapping[str, str | os.PathLike[str]] | None = None,
        secret_values: Mapping[str, str] | None = None,
        ssh: Mapping[str, str | Sequence[str]] | None = None,
        allow: Sequence[str] = (),
        network: str = "default",
        add_hosts: Sequence[str] = (),
        shm_bytes: int = 0,
        ulimits: Sequence[str] = (),
        no_cache_filter: Sequence[str] = (),
        no_cache_steps: Sequence[str] = (),
        fail_fast: bool = False,
        cache_from: str | Sequence[str] = (),
        cache_to: str | Sequence[str] = (),
        secret_hashes: Sequence[str] = (),
        context_normalize: str = "",
        explain: bool = False,
        offline: bool = False,
        lock_file: str | os.PathLike[str] = "",
        locked: bool = False,
    ) -> BuildResult:
        """Builds an image.

        Args:
            context: Folder of the build context, or the URL of a git repository, archive or Dockerfile.
            tag: One name or several; `STAGE=NAME` for that of one target.
            dockerfile: Path from the present folder, or from the context. Default: the context's.
            target: Stage to build, or several, in one build. Default: the last one.
            platform: `os/arch[/variant]`, or several, which give an index. Default: this machine's.
            pull: When the registry is asked for a base that has a tag.
            push: Push every name once the image is built; layers leave beside it.
            compression: How layers are pushed, as `push_all` takes it; `compression_level` and
                `force_compression` likewise.
            annotations: What is added to manifests and index, as `push_all` takes it.
            epoch: SOURCE_DATE_EPOCH: clamps every time in the image, for the same digest everywhere. A build
                argument of that name says the same.
            contexts: Named contexts: a folder, a URL, `docker-image://NAME`, `oci-layout://PATH` or
                `target:STAGE`, by name.
            secrets: Secrets by id: the file that holds each. `GIT_AUTH_TOKEN`, `HTTP_AUTH_TOKEN_<host>`
                and their kin open what the build fetches.
            secret_values: Secrets by id: the value itself.
            ssh: ssh agents by id: the path of a socket, or of one or several key files.
            allow: Entitlements: `security.insecure`, `network.host`.
            network: Of every RUN that names none: `default`, `none` or `host`.
            add_hosts: `name:address`, for the `/etc/hosts` of every RUN.
            shm_bytes: Size of `/dev/shm` in every RUN; 0 for 64 MiB.
            ulimits: `name=soft[:hard]`, for every RUN.
            no_cache_filter: Stages of which every step runs; an empty one means all.
            no_cache_steps: Steps that run: `LINE`, or a part of their text.
            fail_fast: A step that fails ends those that run beside it; else they run to their end.
            cache_from: Shared caches that are asked: `type=…,NAME=VALUE`, one or several.
            cache_to: Shared caches that are written, likewise.
            secret_hashes: Secrets by id whose value is part of the cache keys.
            context_normalize: `git` takes the modes of the context's files from git's index.
            explain: Every step says what its key was compared with.
            offline: No socket is opened.
            lock_file: The lock file. Default: `img.lock` beside the Dockerfile, where there is one.
            locked: A base that the lock file does not pin is an error.
        Raises:
            DockerfileError: the Dockerfile cannot be built; with its place.
            BuildError: a step failed; with its exit code and last lines.
            FetchError: a context, a URL or a repository cannot be had.
            RegistryError, StoreError, SandboxError, UsageError.
        """
        request = BuildRequest(
            context=str(context),
            dockerfile=str(dockerfile),
            cwd=os.getcwd(),
            tags=_several(tag),
            build_args=dict(build_args or {}),
            labels=dict(labels or {}),
            targets=_several(target),
            platforms=_several(platform),
            pull=pull,
            no_cache=no_cache,
            push=push,
            compression=compression or "",
            compression_level=compression_level,
            force_compression=force_compression,
            annotations=tuple(annotations),
            epoch=epoch if epoch is not None else epoch_of((build_args or {}).get("SOURCE_DATE_EPOCH", "")),
            contexts=dict(contexts or {}),
            secret_files={name: os.path.abspath(path) for name, path in (secrets or {}).items()},
            secret_values=dict(secret_values or {}),
            agents={k: (v,) if isinstance(v, str) else tuple(v) for k, v in (ssh or {}).items()},
            allow=tuple(allow),
            network=network,
            add_hosts=tuple(add_hosts),
            shm_bytes=shm_bytes,
            ulimits=tuple(ulimits),
            no_cache_filter=tuple(no_cache_filter),
            no_cache_steps=tuple(no_cache_steps),
            fail_fast=fail_fast,
            cache_from=_several(cache_from),
            cache_to=_several(cache_to),
            secret_hashes=tuple(secret_hashes),
            context_normalize=context_normalize,
            explain=explain,
            offline=offline,
            lock_file=str(lock_file),
            locked=locked,
        )
        if request.context == "-" or request.dockerfile == "-":
            raise UsageError("the library reads no standard input", hint="give a folder and a file")
        data = self._call("build", request=asdict(request))
        data["tags"] = tuple(data["tags"])
        data["images"] = tuple(BuiltImage(**{**each, "tags": tuple(each["tags"])}) for each in data["images"])
        data["warnings"] = tuple(Finding(**found) for found in data["warnings"])
        return BuildResult(**data)

    # These ask, and touch no layer: they need no worker.

    def explain(self, step: int | str = "", build: str = "") -> list[Explained]:
        """Tells why steps of a build ran, or what they were found by.

        Args:
            step: A number, `Dockerfile:LINE`, `:LINE`, or a part of the text; empty for every instruction.
            build: As `build_record` takes it, but empty for the newest that has ended.
        Raises:
            StoreError: there is no such build. UsageError: it has no such step.
        """
        with Engine(self._settings) as engine:
            return engine.explain(str(step), build)

    def check(
        self,
        context: str | os.PathLike[str] = ".",
        *,
        dockerfile: str | os.PathLike[str] = "",
        build_args: Mapping[str, str] | None = None,
        target: str = "",
        platform: str = "",
        pull: PullPolicy = "missing",
    ) -> tuple[Finding, ...]:
        """Checks a Dockerfile without building it; gives what was found, hints included.

        Raises:
            DockerfileError: it cannot be built at all. UsageError: it cannot be read.
        """
        request = _question(context, dockerfile, build_args, target, platform, pull)
        with Engine(self._settings, self._progress) as engine:
            result = engine.check(request)
        if result.error is not None:
            raise result.error
        for text in result.notes:
            self._progress(Note(level="info", text=text))
        return result.findings

    def outline(
        self,
        context: str | os.PathLike[str] = ".",
        *,
        dockerfile: str | os.PathLike[str] = "",
        build_args: Mapping[str, str] | None = None,
        target: str = "",
        platform: str = "",
    ) -> Outline:
        """Tells what the build of a target takes: arguments, secrets, agents, caches.

        Raises:
            DockerfileError, UsageError.
        """
        request = _question(context, dockerfile, build_args, target, platform)
        with Engine(self._settings, self._progress) as engine:
            return engine.outline(request)

    def targets(
        self,
        context: str | os.PathLike[str] = ".",
        *,
        dockerfile: str | os.PathLike[str] = "",
        build_args: Mapping[str, str] | None = None,
    ) -> tuple[Target, ...]:
        """Lists the stages of a Dockerfile, in order.

        Raises:
            DockerfileError, UsageError.
        """
        request = _question(context, dockerfile, build_args, "", "")
        with Engine(self._settings, self._progress) as engine:
            return engine.targets(request)

    def graph(
        self,
        context: str | os.PathLike[str] = ".",
        *,
        dockerfile: str | os.PathLike[str] = "",
        build_args: Mapping[str, str] | None = None,
        target: str | Sequence[str] = (),
        platform: str | Sequence[str] = (),
        pull: PullPolicy = "missing",
    ) -> BuildGraph:
        """Plans a build without carrying it out: its nodes, what each stands on, and its targets.

        Bases are resolved as for a build; no layer is fetched.

        Raises:
            DockerfileError: it cannot be built. RegistryError, StoreError: a base cannot be had. UsageError.
        """
        request = _question(context, dockerfile, build_args, target, platform, pull)
        with Engine(self._settings, self._progress) as engine:
            return engine.graph(request)

    def lock(
        self,
        context: str | os.PathLike[str] = ".",
        *,
        mode: LockMode = "add",
        names: str | Sequence[str] = (),
        dockerfile: str | os.PathLike[str] = "",
        build_args: Mapping[str, str] | None = None,
        target: str | Sequence[str] = (),
        platform: str | Sequence[str] = (),
        contexts: Mapping[str, str] | None = None,
        secrets: Mapping[str, str | os.PathLike[str]] | None = None,
        secret_values: Mapping[str, str] | None = None,
        lock_file: str | os.PathLike[str] = "",
        offline: bool = False,
    ) -> LockResult:
        """Pins what a Dockerfile names to what it means now, in its lock file; or compares the two.

        Args:
            mode: `add` pins what is not pinned yet, and drops what nothing asks for. `update` finds out
                anew what names mean, too. `check` finds out, and changes nothing.
            names: What `update` is for, as written or as the file has it; none for all.
            target: Stages that are looked at, with what they need. Default: all.
            contexts: Named contexts; images among them are pinned too.
            secrets: Tokens that repositories and URLs ask for, by id: the file that holds each.
            secret_values: Likewise: the token itself.
            lock_file: The lock file. Default: `img.lock` beside the Dockerfile.
            offline: Nobody is asked: names mean what the store has.
        Raises:
            LockError: the file is no lock file.
            DockerfileError, RegistryError, FetchError, StoreError, UsageError.
        """
        request = replace(
            _question(context, dockerfile, build_args, target, platform),
            contexts=dict(contexts or {}),
            secret_files={name: os.path.abspath(path) for name, path in (secrets or {}).items()},
            secret_values=dict(secret_values or {}),
            lock_file=str(lock_file),
            offline=offline,
        )
        with Engine(self._settings, self._progress) as engine:
            return engine.lock(request, mode=mode, names=_several(names))

    def pull(
        self,
        name: str,
        *,
        platform: str | Sequence[str] = (),
        all_platforms: bool = False,
        extract: bool = True,
        policy: PullPolicy = "always",
    ) -> Image:
        """Pulls an image and extracts its layers; of several platforms, gives that which the name means here.

        Args, Raises:
            As `pull_all`.
        """
        (result,) = self.pull_all(
            name, platform=platform, all_platforms=all_platforms, extract=extract, policy=policy
        )
        return self.store.names.load(result.digest)

    def pull_all(
        self,
        names: str | Sequence[str],
        *,
        all_tags: bool = False,
        platform: str | Sequence[str] = (),
        all_platforms: bool = False,
        extract: bool = True,
        policy: PullPolicy = "always",
    ) -> list[PullResult]:
        """Pulls images, several at once; a layer that several have comes once.

        Args:
            all_tags: The names are of repositories, of which every tag is pulled that has an image for the
                platform.
            platform: `os/arch[/variant]`, or several, of which the name then means the index. Default: this
                machine's.
            all_platforms: Everything that a name stands for, attestations included: `push` sends it again
                with the same digests.
            extract: Unpack the layers, of several platforms those of this machine's. Without, blobs are kept
                as they come, and no namespace is needed.
            policy: When the registry is asked what a name means: `always`; `missing`, where it is not here;
                `newer`, where what is here cannot be trusted to be the same, and only if it answers; `never`,
                which fetches no layer either.
        Raises:
            InvalidReference, RegistryError, StoreError, LayerError, SandboxError, UsageError.
        """
        results = self._call(
            "pull_all",
            names=list(_several(names)),
            all_tags=all_tags,
            platforms=list(_several(platform)),
            all_platforms=all_platforms,
            extract=extract,
            policy=policy,
        )
        return [PullResult(**result) for result in results]

    def push(
        self,
        name: str,
        *,
        compression: Compression | None = None,
        compression_level: int | None = None,
        force_compression: bool = False,
        format: ManifestFormat | None = None,
        annotations: Sequence[str] = (),
        foreign_layers: bool = False,
    ) -> str:
        """Pushes an image under its own name; gives the digest that the registry has now.

        Args, Raises:
            As `push_all`.
        """
        pushed = self.push_all(
            [name],
            compression=compression,
            compression_level=compression_level,
            force_compression=force_compression,
            format=format,
            annotations=annotations,
            foreign_layers=foreign_layers,
        )
        return pushed[name]

    def push_all(
        self,
        names: Sequence[str],
        *,
        all_tags: bool = False,
        compression: Compression | None = None,
        compression_level: int | None = None,
        force_compression: bool = False,
        format: ManifestFormat | None = None,
        annotations: Sequence[str] = (),
        foreign_layers: bool = False,
    ) -> dict[str, str]:
        """Pushes images under their own names, all at once; gives the digest of each in its registry.

        Args:
            all_tags: The names are of repositories, of which every tag in the store is pushed.
            compression: How layers leave that were built here; None for gzip, where they have no blob yet.
            compression_level: Of the compression; None for its usual one.
            force_compression: Layers that were pulled are compressed anew, too.
            format: `oci` or `docker`: the documents in which they leave, whose digests change where they were
                others; None for those that they have.
            annotations: `NAME=VALUE` each, for manifests; with `index:` or `manifest-descriptor:` before it
                for the index or its entries; `manifest[PLATFORM]:` for one image's.
            foreign_layers: Layers whose makers allow no copies are sent, too; else their URLs stand for them.
        Raises:
            ImageNotFound, UsageError. RegistryError: a registry does not take one. StoreError, SandboxError.
        """
        said: dict[str, Any] = {
            "compression": compression,
            "level": compression_level,
            "force": force_compression,
            "foreign": foreign_layers,
            "annotations": list(annotations),
            "form": format,
        }
        digests = self._call("push_all", names=list(names), all_tags=all_tags, **said)
        return {str(name): str(digest) for name, digest in digests.items()}

    def login(
        self, server: str, username: str, password: str, *, file: str | os.PathLike[str] = ""
    ) -> LoginResult:
        """Logs in to a registry: shows it the credentials, and keeps them where it takes them.

        They are kept by a credential helper that `registries_conf` lists before files, else by the one that
        the file names for the registry, else in the file, as docker does it; an identity token that the
        registry gives is kept in the place of the password. Warnings arrive at `progress`
        before anything is stored.

        Args:
            server: `registry[:port]`, or that and the beginning of a repository; empty for docker.io.
            file: The file that keeps them. Default: `docker_config`, else the first of `auth_files`.
        Raises:
            Unauthorized: the registry does not take them; nothing is stored.
            RegistryError: it cannot be reached, or the credential helper failed.
            UsageError: no file is named, or it is broken, or cannot be written. InvalidReference.
        """
        path = os.path.abspath(file) if str(file) else ""
        with Engine(self._settings, self._progress) as engine:
            return engine.logins().login(server, username, password, file=path)

    def logout(self, server: str = "", *, file: str | os.PathLike[str] = "") -> bool:
        """Forgets what is kept for a registry, in the file and in its helper; False where that was nothing.

        Args:
            server: As `login` takes it; `file` likewise.
        Raises:
            UsageError, RegistryError, InvalidReference: as `login`.
        """
        path = os.path.abspath(file) if str(file) else ""
        with Engine(self._settings, self._progress) as engine:
            return engine.logins().logout(server, file=path).removed

    def copy(
        self,
        source: str,
        *targets: str,
        platform: str | Sequence[str] = (),
        form: str = "",
        compression: Compression | None = None,
        compression_level: int | None = None,
        force_compression: bool = False,
        preserve_digests: bool = False,
        referrers: bool = False,
        foreign_layers: bool = False,
    ) -> CopyResult:
        """Copies an image from one place to others, as it is: no layer is unpacked, and no digest changes.

        Args:
            source: A registry's name, `oci:PATH[:REF]`, `oci-archive:PATH[:REF]`, `dir:PATH`,
                `docker-archive:PATH[:NAME]`, or `img:NAME` for the store.
            targets: Likewise; several get the same image.
            platform: Of an index, the image for this platform alone; several: an index of those. None: all.
            form: `oci` or `docker`: rewrites the manifests so.
            compression: Compresses layers that are not so; `compression_level` of it, and
                `force_compression` those that are.
            preserve_digests: Refuse whatever would change a digest.
            referrers: Signatures, SBOMs and whatever else refers to the image come along.
            foreign_layers: So do layers that are only referred to by URL.
        Raises:
            InvalidReference: a place is none. NotFound: there is no such image, or none for the platform.
            DigestMismatch, SizeMismatch, InvalidDocument: the source is not what it says.
            RegistryError, StoreError, UsageError, Unsupported, SandboxError.
        """
        from img.engine.copying import CopyRequest, CopyResult

        request = CopyRequest(
            source=source,
            targets=targets,
            platforms=_several(platform),
            form=form,  # type: ignore[arg-type]
            compression=compression,
            level=compression_level,
            force=force_compression,
            preserve_digests=preserve_digests,
            referrers=referrers,
            foreign=foreign_layers,
            cwd=os.getcwd(),
        )
        data = self._call("copy", request=asdict(request))
        return CopyResult(**{**data, "targets": tuple(data["targets"])})

    def tags(self, name: str) -> list[str]:
        """Lists the tags of a registry's repository, in its order; the names in a layout or an archive.

        Raises:
            NotFound: there is no such repository. InvalidReference, UsageError, RegistryError.
        """
        with Engine(self._settings, self._progress) as engine:
            return engine.tags(name)

    def delete_remote(self, *names: str, force: bool = False, tag_only: bool = False) -> list[Deleted]:
        """Deletes names from registries, with the manifests that they stand for; gives what went.

        Where another tag stands for the same manifest, only the tag goes, if the registry can do that.

        Args:
            force: Other tags of the same manifest go, too.
            tag_only: The tags alone go, and the manifests stay.
        Raises:
            UsageError: other tags stand for the manifest, and would go. NotOffered: the registry deletes
                nothing, or no tags alone. NotFound, Unauthorized, RegistryError.
        """
        with Engine(self._settings, self._progress) as engine:
            return engine.delete_remote(names, force=force, tag_only=tag_only)

    # ---- lists of images, and what registries have; these need no worker but to push -----------

    def create_list(
        self,
        name: str,
        images: Sequence[str] = (),
        *,
        amend: bool = False,
        everything: bool = False,
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """Makes a list of images under a name of the store; gives its digest.

        Args:
            images: Names of the store, else of registries; `docker://` before one means its registry.
            amend: A list that is there already is added to; else it is an error.
            everything: Of names that stand for several platforms, every image; else this machine's.
            annotations: Of the list itself.
        Raises:
            UsageError: the name is taken. InvalidReference, InvalidDocument, RegistryError.
        """
        with Engine(self._settings, self._progress) as engine:
            return engine.lists().create(
                name, images, amend=amend, everything=everything, annotations=annotations
            )

    def add_to_list(
        self, name: str, image: str, change: EntryChange | None = None, *, everything: bool = False
    ) -> str:
        """Adds an image to a list, in the place of the one for its platform; gives the list's digest.

        Args:
            change: What the list shall say of it. Its platform is also the one that is taken of several.
            everything: As `create_list` takes it.
        Raises:
            ImageNotFound: there is no such list. UsageError, InvalidReference, InvalidDocument,
            RegistryError.
        """
        from img.engine.lists import EntryChange

        with Engine(self._settings, self._progress) as engine:
            return engine.lists().add(name, image, change or EntryChange(), everything=everything)

    def annotate_list(
        self,
        name: str,
        image: str = "",
        change: EntryChange | None = None,
        *,
        annotations: Mapping[str, str] | None = None,
        subject: str = "",
    ) -> str:
        """Changes what a list says of an image, or of itself; gives its digest.

        Args:
            image: Which one: its digest or the beginning of that, or its name.
            annotations: Of the list itself.
            subject: The name of the manifest that the list is about.
        Raises:
            ImageNotFound: there is no such list. UsageError: it has no such image. RegistryError.
        """
        from img.engine.lists import EntryChange

        with Engine(self._settings, self._progress) as engine:
            return engine.lists().annotate(
                name, image, change or EntryChange(), annotations=annotations, subject=subject
            )

    def remove_from_list(self, name: str, *images: str) -> str:
        """Takes images out of a list, by digest or name; gives its digest. `remove` removes whole lists.

        Raises:
            ImageNotFound: there is no such list. UsageError: it has no such image; then none is taken out.
        """
        with Engine(self._settings, self._progress) as engine:
            return engine.lists().remove(name, images)

    def push_list(
        self,
        name: str,
        dest: str = "",
        *,
        form: ManifestFormat | None = None,
        compression: Compression | None = None,
        compression_level: int | None = None,
        force_compression: bool = False,
        add_compression: Sequence[Compression] = (),
        foreign_layers: bool = False,
    ) -> str:
        """Pushes a list and the images in it; gives the digest that the registry has now.

        Args:
            dest: The name that it goes to; empty for its own.
            form: As what it leaves: an OCI index or a docker list; None for what it is.
            add_compression: `gzip`, `zstd`: the list gets each image in these compressions as well, beside
                the one that it has. Entries of zstd are marked so and come last.
            compression, compression_level, force_compression, foreign_layers: As `push_all` takes them.
        Raises:
            ImageNotFound, UsageError, RegistryError. Unsupported: a docker list cannot say what it says.
        """
        said: dict[str, Any] = {
            "compression": compression,
            "level": compression_level,
            "force": force_compression,
            "foreign": foreign_layers,
            "add": list(add_compression),
        }
        return str(self._call("push_list", name=name, dest=dest, form=form, **said))

    def manifest(self, name: str) -> Manifest | Index:
        """What a name stands for: a list of the store, else the manifest or index that its registry has.

        Args:
            name: `docker://` before it means the registry, whatever is here.
        Raises:
            NotFound: there is none. InvalidReference, InvalidDocument, RegistryError.
        """
        with Engine(self._settings, self._progress) as engine:
            return engine.lists().inspect(name)

    def referrers(self, name: str, *, artifact_type: str = "", platform: str = "") -> tuple[Descriptor, ...]:
        """Lists the manifests that name an image as their subject: signatures, attestations, and the like.

        Args:
            name: A name of a registry, which is asked; a digest need not be there itself.
            artifact_type: What they have to be; empty for all.
            platform: Of a name that stands for an index, the image for this platform; empty for the index.
        Raises:
            NotFound: there is no such image. InvalidReference, InvalidDocument, RegistryError.
        """
        found = self.referrer_tree(name, artifact_type=artifact_type, platform=platform, depth=1)
        return tuple(each.entry for each in found)

    def referrer_tree(
        self, name: str, *, artifact_type: str = "", platform: str = "", depth: int = 10
    ) -> tuple[Referrer, ...]:
        """As `referrers`, each with what is about it in turn.

        Args:
            artifact_type: What those are that are about the image itself; what is about them may be anything.
            depth: How many levels, from 1 to 100. Of 1,000 manifests at most it is asked what is about them.
        Raises:
            As `referrers`. UsageError: the depth is none.
        """
        with Engine(self._settings, self._progress) as engine:
            said = {"artifact_type": artifact_type, "platform": platform}
            return engine.referrers(name, depth=depth, **said)[1]

    def push_artifact(
        self,
        name: str,
        files: Sequence[str | os.PathLike[str]],
        *,
        artifact_type: str = "",
        subject: str = "",
        platform: str = "",
        annotations: Mapping[str, str] | None = None,
        annotation_file: str | os.PathLike[str] = "",
        config: str | os.PathLike[str] = "",
        epoch: int = 0,
    ) -> Artifact:
        """Pushes files, and folders that are packed, as one artifact; says where it is now.

        Args:
            name: Where to; empty for the repository of the subject, in which it gets no tag. Further tags may
                stand behind the first, with commas between them.
            files: `PATH` or `PATH:MEDIA-TYPE` each. A path below the current folder is the file's name.
            artifact_type: What it is, as a media type.
            subject: The name of the manifest that it is about, of the same repository.
            platform: Where that name stands for an index, the image for this platform.
            annotations: Of the artifact.
            annotation_file: A JSON file with annotations: by the names of files, `$manifest` and `$config`.
            config: `PATH` or `PATH:MEDIA-TYPE` of its config.
            epoch: SOURCE_DATE_EPOCH: no time in a packed folder is later; 0 leaves times out.
        Raises:
            UsageError: a file cannot be read, or two have one name. NotFound: there is no such subject.
            InvalidReference, RegistryError.
        """
        from img.engine.artifacts import ArtifactRequest

        request = ArtifactRequest(
            files=tuple(str(file) for file in files),
            artifact_type=artifact_type,
            subject=subject,
            platform=platform,
            annotations=dict(annotations or {}),
            annotation_file=str(annotation_file),
            config=str(config),
            epoch=epoch,
        )
        with Engine(self._settings, self._progress) as engine:
            return engine.push_artifact(name, request, cwd=os.getcwd())

    def pull_artifact(
        self,
        name: str,
        output: str | os.PathLike[str],
        *,
        include: Sequence[str] = (),
        platform: str = "",
        config: str | os.PathLike[str] = "",
        overwrite: bool = False,
    ) -> list[Path]:
        """Fetches the files of an artifact into a folder, and unpacks packed folders; gives their paths.

        None of them gets its name before all are there and right. What an artifact calls its files, and
        what is in packed folders, never leads out of the folder.

        Args:
            include: Patterns as a shell has them; only files whose whole name one of them fits.
            platform: Of a name that stands for an index, the artifact for this platform.
            config: File that its config is written to.
            overwrite: Files that are there already are replaced; else they are an error.
        Raises:
            UsageError: it is an image or an index, or a file is there already.
            InvalidDocument: a name in it is none below a folder. NotFound, RegistryError, DigestMismatch.
        """
        from img.engine.retrieving import ArtifactWish

        wish = ArtifactWish(
            include=tuple(include), platform=platform, config=str(config), overwrite=overwrite
        )
        with Engine(self._settings, self._progress) as engine:
            return [Path(path) for path in engine.pull_artifact(name, str(output), wish)]

    def tag(self, source: str, target: str) -> str:
        """Gives an image one more name; gives that name in full.

        Raises:
            ImageNotFound, InvalidReference.
        """
        return str(self._call("tag", source=source, target=target))

    def remove(self, *names: str) -> PruneResult:
        """Takes names away, and frees what was theirs alone.

        Raises:
            ImageNotFound: one is not here; then nothing was removed.
        """
        return _pruned(self._call("remove", names=list(names)))

    def save(
        self,
        names: str | Sequence[str],
        output: str | os.PathLike[str],
        *,
        form: str = "docker-archive",
        compression: Compression | None = None,
        compression_level: int | None = None,
        force_compression: bool = False,
    ) -> None:
        """Saves images to one archive (`docker-archive` or `oci-archive`).

        Args:
            compression: As `push_all` takes it; `compression_level` and `force_compression` likewise.
        Raises:
            ImageNotFound, StoreError.
        """
        listed = [names] if isinstance(names, str) else list(names)
        path = str(Path(output).absolute())
        said = {"compression": compression, "level": compression_level, "force": force_compression}
        self._call("save", names=listed, output=path, form=form, **said)

    def export(self, image: Image, spec: str) -> None:
        """Writes an image, whose layers the store has, where `spec` says.

        Args:
            image: From the store, perhaps changed by `with_*`.
            spec: `type=oci|docker,dest=FILE[,name=NAME]`.
        Raises:
            UsageError: the spec says nothing that can be done.
        """
        fields = dict(part.partition("=")[::2] for part in spec.split(","))
        form = {"oci": "oci-archive", "docker": "docker-archive"}.get(fields.get("type", ""))
        if form is None or not fields.get("dest"):
            raise UsageError(f"bad export {spec!r}", hint="write type=oci,dest=FILE or type=docker,dest=FILE")
        self._call(
            "export",
            manifest=image.manifest.raw.decode(),
            config=image.config_raw.decode(),
            output=str(Path(fields["dest"]).absolute()),
            form=form,
            name=fields.get("name", ""),
        )

    def load(self, archive: str | os.PathLike[str]) -> list[str]:
        """Loads the images of an archive, or of a layout's folder; gives their names, or IDs where unnamed.

        Raises:
            InvalidDocument, DigestMismatch.
        """
        return [str(name) for name in self._call("load", archive=str(Path(archive).absolute()))]

    def unpack(self, name: str, dest: str | os.PathLike[str], *, owners: bool | None = None) -> str:
        """Writes an image's root filesystem into a new folder; gives the image's ID.

        Args:
            owners: Files belong to whom the image says. Default: only as root; else they are the caller's.
        Raises:
            ImageNotFound. UsageError: `dest` exists and is not empty.
        """
        return str(self._call("unpack", name=name, dest=str(Path(dest).absolute()), owners=owners))

    def usage(self) -> Usage:
        """Counts the real bytes of everything in the store."""
        data = self._call("usage")
        rows = {name: tuple(data[name]) for name in ("layers", "cache_mounts")}
        return Usage(**{**data, **rows})

    def prune(self, *, everything: bool = False) -> PruneResult:
        """Frees what no image, no cache policy and no running process needs.

        Args:
            everything: Leaves named images only.
        """
        return _pruned(self._call("prune", everything=everything))

    def check_store(self, *, quick: bool = False, repair: bool = False) -> StoreReport:
        """Reads all that the store keeps, and tells what is not as it says: blobs, layers, names, records.

        Other processes may use the store meanwhile.

        Args:
            quick: Digests documents alone, and of layers and large blobs only looks whether they are there.
            repair: Takes away what is wrong, and what dead processes left: it comes again when it is needed.
        Returns:
            What was looked at, and every defect with what to do about it. `sound` is False where anything
            is wrong but leftovers, also where it was repaired.
        Raises:
            StoreError: the database cannot be read, or is damaged and was to be repaired.
        """
        from img.store.check import Defect, StoreReport

        data = self._call("check_store", quick=quick, repair=repair)
        return StoreReport(**{**data, "defects": tuple(Defect(**one) for one in data["defects"])})

    # ---- what was built; these read, and need no worker ----------------------------------------

    def history(self) -> list[BuildRow]:
        """Lists the builds of the store, newest first, those that are running among them."""
        return self.store.builds.all()

    def build_record(self, build: str = "") -> BuildRecord:
        """Gives all that is known of one build; of one that is running, so far.

        Args:
            build: An ID or its beginning, the name of an image for the newest build of it, `^N` for the
                Nth before the newest, or empty for the newest.
        Raises:
            StoreError: there is no such build.
        """
        return self.store.builds.record(self.store.builds.find(build))

    def logs(self, build: str = "", step: int | str = "") -> bytes:
        """Gives what the steps of a build wrote, byte by byte; one after the other where they are several.

        Args:
            build: As `build_record` takes it.
            step: A number, `Dockerfile:LINE`, `:LINE`, or a part of the text; empty for all.
        Raises:
            StoreError: there is no such build. UsageError: it has no such step.
        """
        record = self.build_record(build)
        steps = record.steps if step == "" else record.find_steps(str(step))
        return b"".join(self.store.builds.log(record.id, found.number) for found in steps)

    # ---- cache mounts ------------------------------------------------------------------------

    def cache_mounts(self) -> list[CacheMount]:
        """Every copy of every cache mount in the store (RUN --mount=type=cache), by id."""
        from img.engine.mount_verbs import CacheMount

        return [CacheMount(**row) for row in self._call("cache_mounts")]

    def export_cache_mount(
        self, name: str, output: str | os.PathLike[str] | None = None, *, to: str = ""
    ) -> None:
        """Writes a cache mount as a `.tar.zst` file, or into a shared cache.

        Args:
            name: Its id as the Dockerfile has it, or the beginning of a copy's name.
            output: The file, replaced when it is whole.
            to: `type=…,NAME=VALUE` as for `cache_to`, in place of it.
        Raises:
            UsageError: it is not here, or several are. CacheError: the shared cache cannot be written.
        """
        if (output is None) == (not to):
            raise UsageError("a cache mount is exported to a file, or with to=")
        if output is None:
            self._call("export_cache_mount", name=name, to=to, cwd=os.getcwd())
        else:
            self._call("export_cache_mount", name=name, output=str(Path(output).absolute()))

    def import_cache_mount(
        self,
        name: str,
        archive: str | os.PathLike[str] | None = None,
        *,
        source: str = "",
        uid: int = 0,
        gid: int = 0,
        mode: int | None = None,
    ) -> str:
        """Makes or replaces a cache mount by an archive, or by what a shared cache carries; gives its name.

        Args:
            name: Its id as the Dockerfile has it, or the beginning of a copy's name.
            archive: tar; zstd, gzip, bzip2 or xz around it.
            source: `type=…,NAME=VALUE` as for `cache_from`, in place of it.
            uid: What the mount's options say; `gid` and `mode` likewise. A shared cache says it itself.
        Raises:
            UsageError: no such archive or cache, or several are meant. LayerError: it is broken or hostile.
            StoreError: a build is using the cache mount. What is there stays as it is.
        """
        if (archive is None) == (not source):
            raise UsageError("a cache mount is imported from an archive, or with source=")
        path = "" if archive is None else str(Path(archive).absolute())
        args = {"source": source, "cwd": os.getcwd(), "uid": uid, "gid": gid, "mode": mode}
        return str(self._call("import_cache_mount", name=name, archive=path, **args))

    def remove_cache_mounts(
        self, names: str | Sequence[str] = (), *, everything: bool = False
    ) -> list[CacheMount]:
        """Removes cache mounts: every copy that a name stands for, or all; gives what was removed.

        Raises:
            UsageError: one of them is not here. StoreError: one is in use. Then none is removed.
        """
        from img.engine.mount_verbs import CacheMount

        listed = [names] if isinstance(names, str) else list(names)
        rows = self._call("remove_cache_mounts", names=listed, everything=everything)
        return [CacheMount(**row) for row in rows]

    # ---- parts -------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store, for reading names and documents; it touches no layer."""
        if self._store is None:
            self._store = Store(self._settings.state)
        return self._store

    def close(self) -> None:
        """Closes the store; safe to call twice."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, operation: str, /, **args: object) -> Any:
        """Runs one operation in a worker; passes its events on and raises its error."""
        call = json.dumps({"call": operation, "args": args, "settings": asdict(self._settings)})
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
            worker = subprocess.Popen(
                [sys.executable, "-m", "img.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                encoding="utf-8",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
            assert worker.stdin is not None and worker.stdout is not None
            try:
                # Its standard input stays open: the worker ends when that closes, with us or by us.
                worker.stdin.write(call + "\n")
                worker.stdin.flush()
                last = self._follow(worker.stdout)
            finally:
                _close(worker)
            complaints.seek(0)
            return _result(last, worker.returncode, complaints.read())

    def _follow(self, lines: Any) -> dict[str, Any]:
        """Passes events on; gives the line that is none."""
        last: dict[str, Any] = {}
        for line in lines:
            data = json.loads(line)
            if "event" in data:
                self._progress(from_json(data))
            else:
                last = data
        return last


def _close(worker: subprocess.Popen[str]) -> None:
    """Closes both pipes and waits: a worker that is not done takes it as an interrupt."""
    for pipe in (worker.stdin, worker.stdout):
        try:
            if pipe is not None:
                pipe.close()
        except BrokenPipeError:
            continue
    worker.wait()


def _result(last: dict[str, Any], code: int, complaint: str) -> Any:
    """The result in a worker's last line, or its error, raised."""
    if "result" in last:
        return last["result"]
    if "error" in last:
        error = from_fields(last["error"])
        error.hint = str(last.get("hint", ""))
        raise error
    if "os_error" in last:
        raise OSError(*last["os_error"])
    lines = complaint.strip().splitlines()
    raise ImgError(f"the worker ended with code {code}" + (f": {lines[-1]}" if lines else ""))


def _question(
    context: str | os.PathLike[str],
    dockerfile: str | os.PathLike[str],
    build_args: Mapping[str, str] | None,
    target: str | Sequence[str],
    platform: str | Sequence[str],
    pull: PullPolicy = "missing",
) -> BuildRequest:
    """The request of a build that is only asked about."""
    if "-" in (str(context), str(dockerfile)):
        raise UsageError("the library reads no standard input", hint="give a folder and a file")
    return BuildRequest(
        context=str(context),
        dockerfile=str(dockerfile),
        cwd=os.getcwd(),
        build_args=dict(build_args or {}),
        targets=_several(target),
        platforms=_several(platform),
        pull=pull,
    )


def _several(words: str | Sequence[str]) -> tuple[str, ...]:
    """One word, several, or (where it is empty) none."""
    return tuple(words) if not isinstance(words, str) else (words,) if words else ()


def _pruned(data: dict[str, Any]) -> PruneResult:
    return PruneResult(**{**data, "layers": tuple(data["layers"])})


def build(context: str | os.PathLike[str] = ".", **options: Any) -> BuildResult:
    """Builds an image in the default store; see `Client.build` for the options and errors."""
    with Client(**_client_options(options)) as client:
        return client.build(context, **options)


def pull(name: str, **options: Any) -> Image:
    """Pulls an image into the default store; see `Client.pull` for the options and errors."""
    with Client(**_client_options(options)) as client:
        return client.pull(name, **options)


def push(name: str, **options: Any) -> str:
    """Pushes an image of the default store; see `Client.push` for the options and errors."""
    with Client(**_client_options(options)) as client:
        return client.push(name, **options)


def _client_options(options: dict[str, Any]) -> dict[str, Any]:
    """Takes the options of `Client` itself out of a call's."""
    names = (
        "state",
        "progress",
        "docker_config",
        "auth_files",
        "credentials",
        "plain_http",
        "jobs",
        "backend",
        "proxies",
        "no_proxy",
        "ca_file",
        "insecure",
        "cert_dirs",
        "mirrors",
        "registries_conf",
        "variables",
    )
    return {name: options.pop(name) for name in names if name in options}
