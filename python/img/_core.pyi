"""The Rust extension: layers, copies, mounts and containers.

Imported only by the floors `store`, `snapshot`, `executor`, `context`, `exporter` and `remote`.
Lists of layer directories are always base first. A *layer directory* holds one layer in
overlay's own form: a deleted name is a character device 0:0, an opaque directory carries
`user.overlay.opaque=y`. Every call that may take long releases the interpreter.

Every function may raise `OSError` (with its path), `img.errors.DiskFull`, and
`KeyboardInterrupt`; what else it raises is named beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, final

from typing_extensions import Self

__all__ = [
    "ApplyStats",
    "BlobGrowth",
    "BlobSink",
    "ChunkedFolder",
    "Container",
    "DigestMemo",
    "FolderChunk",
    "IgnoreRules",
    "IndexModes",
    "Namespace",
    "Packed",
    "PackedBlob",
    "Selected",
    "Selection",
    "TreeRecord",
    "apply_layer",
    "change_mode",
    "chunk_folder",
    "compare_listings",
    "compression_level",
    "copy_layer",
    "default_seccomp",
    "disk_usage",
    "disk_usages",
    "enter_namespace",
    "flatten",
    "make_directory",
    "mount_memory",
    "mount_overlay",
    "pack_blob",
    "pack_layer",
    "read_in_layers",
    "remove_tree",
    "run_outside",
    "settle_layer",
    "spawn",
    "start_outside",
    "stop_everything",
    "stream_folder",
    "unmount",
    "unpack_archive",
    "unpack_chunks",
    "unpack_folder",
    "wait_for_lock",
    "write_listing",
]

def stop_everything(stop: bool) -> None:
    """Makes every call that is under way end soon with KeyboardInterrupt, in whatever thread it is.

    Python runs signal handlers in its main thread alone, while long calls run in others; whoever
    handles an interrupt there calls this, waits for the others, and takes it back with False.
    """

# ---- layers.rs: bytes of a layer, in and out --------------------------------------------------

@final
class ApplyStats:
    """What one extraction did."""

    diff_id: str
    """sha256 of the uncompressed tar, `sha256:<hex>`."""
    uncompressed_size: int
    """Bytes of the uncompressed tar."""
    entries: int
    whiteouts: int
    bytes_written: int
    """Content bytes of regular files."""
    pending: bool
    """True where a hard link or an implied parent folder needs the layers below (`settle_layer`)."""

@final
class BlobSink:
    """Takes one blob's bytes as they arrive; verifies, stores and extracts them on own threads.

    Nothing is left at `path` unless `finish` returned; `extract_to` may hold a partial layer
    after a failure, which the caller discards.
    """

    def __new__(
        cls,
        path: str | None,
        *,
        digest: str,
        size: int | None,
        extract_to: str | None = None,
        diff_id: str | None = None,
    ) -> Self:
        """Opens the sink.

        Args:
            path: Where the verified blob is to stand (written beside it, renamed at the end);
                None keeps no blob.
            digest: sha256 digest that the bytes must have.
            size: Length in bytes that they must have, or None where it is not known.
            extract_to: Existing empty folder for the layer, or None to store only.
            diff_id: Digest that the uncompressed tar must have, or None to accept what it has.
        """

    @property
    def offset(self) -> int:
        """Bytes taken so far: where a resumed transfer goes on."""

    def write(self, data: bytes) -> None:
        """Takes the next bytes; blocks while the threads behind it are busy.

        Raises:
            DigestMismatch, SizeMismatch, LayerError: found so far by the threads.
        """

    def finish(self) -> ApplyStats | None:
        """Ends the blob, waits for the threads, publishes `path`.

        Returns:
            What the extraction did; None without `extract_to`.
        Raises:
            DigestMismatch, SizeMismatch, LayerError.
        """

    def abort(self) -> None:
        """Stops the threads and removes the partial blob. Safe to call twice, or after finish."""

def apply_layer(
    blob: str, dest: str, *, diff_id: str | None = None, told: Callable[[int], None] | None = None
) -> ApplyStats:
    """Extracts a stored blob (tar, gzip, zstd; told by its magic bytes) into an empty folder.

    Args:
        told: Called some ten times a second, in the calling thread, with how many bytes of `blob` were read.

    Raises:
        DigestMismatch: the uncompressed tar is not `diff_id`.
        LayerError: bad tar or hostile entry.
    Source: OCI image-spec v1.1, layer.md, "Applying Changesets".
    """

def settle_layer(dest: str, parents: Sequence[str]) -> None:
    """Resolves what `ApplyStats.pending` announced, against the layers below, base first.

    Hard links to files of a parent are copied in; parent folders that the archive left out take
    the attributes that the parents give them; entries under a parent's symlink move to where it leads.
    The list of what is pending was left by the extraction beside `dest` in `<dest>.pending`,
    which this removes.
    """

def flatten(layers: Sequence[str], dest: str, *, owners: bool = True) -> None:
    """Merges layer directories into one plain tree at `dest` (an existing empty folder).

    Args:
        owners: False leaves every file to the caller's own id.
    """

def unpack_archive(archive: str, dest: str, *, told: Callable[[int], None] | None = None) -> list[str] | None:
    """Extracts a plain archive (tar; gzip, bzip2, xz or zstd around it) as ADD does.

    Whiteout names are ordinary names here. Owners, modes and times are kept.

    Args:
        told: As `apply_layer` takes it.

    Returns:
        The folders that the archive takes for granted, as they have no entry of their own. None, having
        done nothing, where `archive` is not such an archive.
    Raises:
        LayerError: it is one, but broken or hostile.
    """

def remove_tree(path: str) -> int:
    """Removes a tree, whatever its modes, on several threads. A missing path is no error.

    Returns:
        Bytes of disk given back (blocks of files whose last link went).
    """

def disk_usage(path: str) -> int:
    """Bytes of disk that a tree holds (512-byte blocks, each inode once)."""

def disk_usages(paths: Sequence[str]) -> list[int]:
    """The same of several trees; an inode that several of them have counts with the first of these."""

@final
class Packed:
    """A layer made from a folder."""

    diff_id: str
    uncompressed_size: int
    content_digest: str
    """`blake3:<hex>` over everything but times."""
    entries: int
    """0 means that nothing changed."""
    drifted: str | None
    """A file that was written to while it was copied: the layer is not what its selection's digest says."""
    damaged: str | None
    """A file of the earlier layer that is not what was written there; nothing was taken from it."""

def pack_layer(source: str, *, clamp_mtime: int | None = None) -> Packed:
    """Digests a layer directory as a tar in one pass.

    The same directory gives the same digests at any degree of parallelism.

    Args:
        source: Layer directory (an overlay upper).
        clamp_mtime: Times later than this (seconds since the epoch) become this.
    Source: OCI image-spec v1.1, layer.md, "Creating".
    """

# ---- blobs.rs: layers that leave ---------------------------------------------------------------

@final
class BlobGrowth:
    """A blob while `pack_blob` makes it, for those who send it meanwhile. Safe from several threads."""

    def __init__(self) -> None: ...
    def wait(self, offset: int, count: int) -> int | None:
        """Waits until `count` bytes are there from `offset` on, or the blob has ended.

        Returns:
            How many bytes are there from `offset` on; 0 at the end. None where the blob was given up.
        """

    def read(self, offset: int, count: int) -> bytes:
        """Reads what is there from `offset` on, at most `count` bytes, without waiting.

        Raises:
            OSError: the file cannot be read.
        """

    @property
    def progress(self) -> tuple[int, int]:
        """How many bytes of the blob are there, and how many bytes of the tar are in those."""

    def give_up(self) -> None:
        """Ends those that wait, where `pack_blob` is not called after all. Changes nothing after its end."""

@final
class PackedBlob:
    """A blob that was made of a layer."""

    diff_id: str
    """sha256 of the tar."""
    digest: str
    """sha256 of the blob."""
    size: int
    """Bytes of the blob."""
    reused: int
    """Those of them that were copied from earlier blobs."""

def pack_blob(
    source: str,
    blob: str,
    *,
    compression: Literal["none", "gzip", "zstd"],
    level: int | None = None,
    clamp_mtime: int | None = None,
    index: str | None = None,
    earlier: Sequence[tuple[str, str]] = ...,
    growth: BlobGrowth | None = None,
) -> PackedBlob:
    """Makes the blob of a layer: its tar, compressed, on several threads.

    The same directory, form and level give the same bytes: at any degree of parallelism, and whatever
    earlier blobs are given.

    Args:
        source: Layer directory (an overlay upper); or another blob of the layer, whatever its compression:
            the tar of a layer that was made elsewhere is in its blob alone.
        blob: File to write; written beside it and renamed.
        level: Of the compression; None for its usual one.
        clamp_mtime: Times later than this (seconds since the epoch) become this.
        index: File for the index of its blocks; none is written where nothing of the blob could be found.
        earlier: Indexes of earlier blobs, each with its blob, the likeliest first: blocks that are the same
            are copied from there, verified. What is missing or broken is passed over.
        growth: Is told how far it is.
    Raises:
        ValueError: there is no such compression, or level of it.
        DiskFull: nothing is left behind.
    """

def compression_level(compression: Literal["none", "gzip", "zstd"], level: int | None = None) -> int | None:
    """Gives the level that is used where this one is asked for; None for what has no levels.

    Raises:
        ValueError: there is no such compression, or level of it.
    """

# ---- chunks.rs: folders of cache mounts that travel --------------------------------------------

@final
class FolderChunk:
    """A part of a folder's tar, as a zstd frame."""

    digest: str
    """sha256 of the frame."""
    size: int
    """Bytes of the frame."""
    content: str
    """BLAKE3 of the tar's bytes in it, in hexadecimal."""
    known: bool
    """It was known, and no frame was made."""

@final
class ChunkedFolder:
    """A folder in chunks: one behind the other, their frames are a `.tar.zst`."""

    chunks: list[FolderChunk]
    """In the tar's order; one may stand in several places."""
    total_bytes: int
    """Length of the tar."""
    entries: int
    left_out: list[str]
    """Files that somebody was writing to whenever they were read: they are not in the tar."""
    torn: list[str]
    """Files that were written to while they were read (`stream_folder` only): both states are in it."""

def chunk_folder(source: str, spool: str, *, known: Mapping[str, tuple[str, int]]) -> ChunkedFolder:
    """Cuts a folder's tar into chunks by their content, so that a small change changes few of them.

    The chunks depend on the folder alone. Others may write to it meanwhile. Sockets, pipes and devices are
    left out; `.wh.` names are ordinary ones.

    Args:
        spool: Existing folder; gets a file for each chunk that is not known, by its hexadecimal digest.
        known: Digest and size of chunks that nobody needs, by `FolderChunk.content`.
    """

def stream_folder(source: str, output: int) -> ChunkedFolder:
    """Writes a folder to a file descriptor as the same `.tar.zst`."""

def unpack_chunks(chunks: Sequence[str], dest: str, *, total_bytes: int) -> list[str]:
    """Extracts chunks, given as files in the tar's order, into an empty folder.

    Args:
        total_bytes: Length that the tar must have.
    Returns:
        `FolderChunk.content` of each.
    Raises:
        LayerError: they are no chunks, or an entry is hostile. SizeMismatch. `dest` may hold a part.
    """

def unpack_folder(archive: str, dest: str) -> bool:
    """Extracts an archive as `unpack_archive` does, and takes an empty tar for one.

    Returns:
        False, having done nothing, where it is no archive.
    Raises:
        LayerError: it is one, but broken or hostile.
    """

# ---- copies.rs: what COPY and ADD read and write ----------------------------------------------

@final
class DigestMemo:
    """File digests remembered by device, inode, size, mtime and ctime across builds."""

    def __new__(cls, path: str) -> Self:
        """Reads the memo; a missing, old or broken file is an empty memo."""

    def save(self) -> None:
        """Writes it atomically, if anything changed. Entries not seen for long are dropped."""

@final
class Selected:
    """One file of a selection, for people: `img context ls`, explanations."""

    path: str
    size: int
    mode: int
    digest: str

@final
class Selection:
    """The files that one COPY or ADD takes out of one tree, in a stable order."""

    def __new__(
        cls,
        root: str,
        patterns: Sequence[str],
        *,
        ignore: Sequence[str] = ...,
        exclude: Sequence[str] = ...,
        owners: bool = False,
        parents: bool = False,
        unpacked: Sequence[str] | None = None,
        hidden: bool = False,
        modes: IndexModes | None = None,
    ) -> Self:
        """Walks the tree.

        Args:
            root: Context folder, or a stage's mounted root. Nothing outside it is ever read:
                `..` is clamped and symlinks in a pattern's parents are resolved inside it.
            patterns: Source words as the Dockerfile has them, variables expanded; Go's
                `filepath.Match` globs. A folder means its contents.
            ignore: Lines of `.dockerignore`, comments and blanks removed, last match wins.
            exclude: `--exclude` patterns, same matcher, relative to each folder that is copied. A file
                that a pattern names is never excluded.
            owners: Take owners from the tree (a stage). Without it everything is 0:0 (a context).
            parents: Keep the folders that a file lies in, from the pivot `/./` of its pattern on; `**`
                matches any number of folders.
            unpacked: The tree was an archive, and these folders have no entry of their own in it. What it
                holds keeps its mode and replaces what is in its way; these folders do not.
            hidden: Remember what the patterns of `ignore` and `exclude` leave out.
            modes: The tree is a work tree of git: files have these modes, folders 0755.
        Raises:
            CopyError: a pattern is not valid, or one without a wildcard names nothing (`not_found`).
        """

    @property
    def count(self) -> int:
        """Entries, folders included."""

    @property
    def total_bytes(self) -> int: ...
    @property
    def ignored(self) -> bool:
        """True where `.dockerignore` took away something that a pattern named."""

    def recall(self, memo: DigestMemo | None = None) -> None:
        """Takes what the memo knows of the files; none is read. Before a `copy_layer` that goes before
        `content_digest`, which then reads nothing that was copied."""

    def content_digest(self, memo: DigestMemo | None = None) -> str:
        """`blake3:<hex>` over paths, types, modes, owners, link targets, xattrs and contents; no times.

        Args:
            memo: Is asked for files first, and told of those that were read.
        """

    def file_paths(self) -> list[str]:
        """The paths of the regular files, relative to the root; reads none of them."""

    def files(self) -> list[Selected]: ...
    @property
    def foreign(self) -> bool:
        """True where something belongs to another user or group than this namespace's root."""

    @property
    def altered(self) -> bool:
        """True where something has another mode here than on disk, by `modes`."""

    def hidden(self) -> list[str]:
        """What lies in the folders and was left out, paths relative to the root; needs `hidden`.

        Of a folder that was left out, what is in it is not listed.
        """

    def sources(self) -> list[tuple[str, str, bool]]:
        """What the patterns named: where it is, what was matched (a symlink, perhaps), is it a folder.

        Paths are relative to the root; the first leads through no symlink.
        """

@final
class IndexModes:
    """The modes that git's index gives the files of a work tree."""

    def __new__(cls, listing: bytes) -> Self:
        """Reads what `git ls-files --stage -z` printed, paths relative to the context's root.

        Raises:
            ValueError: it is no such listing.
        """

def write_listing(selections: Sequence[Selection], folder: str) -> str:
    """Writes down what selections took, as their last `content_digest` saw it; reads no file for that.

    Returns:
        The listing's name in `folder`: a digest of what is in it. One that is there is left alone.
    """

def compare_listings(
    old: str, new: str, limit: int
) -> tuple[list[tuple[str, str, str, str]], int, int, int, int] | None:
    """Compares two listings, named by their paths.

    Returns:
        The first differences in the order of the paths, `limit` at the most: the path (of a folder with a
        slash at its end), what changed (`added`, `removed`, `type`, `content`, `mode`, `owner`, `target`,
        `xattrs`, `device`), and what it was and is: of a content its bytes, of a folder that came or went
        how many objects came or went with it, which are not told one by one. Then the number of all
        differences, and of the objects that came, that went, and that are in both and differ. None where a
        listing is missing or damaged.
    """

@final
class IgnoreRules:
    """The patterns of an ignore file, compiled; the same matcher as `Selection`'s."""

    def __new__(cls, patterns: Sequence[str]) -> Self:
        """Compiles them.

        Raises:
            CopyError: a pattern is not valid; `path` is the pattern.
        """

    def excluding(self, path: str) -> int | None:
        """Index of the pattern that takes a path out (itself, or with a folder); None where it stays in."""

def change_mode(change: str, mode: int = 0, *, folder: bool = False) -> int:
    """What a `--chmod` makes of a mode.

    Raises:
        CopyError: `change` is neither an octal number up to 7777 nor a list of changes.
    Source: Dockerfile reference, "COPY --chmod".
    """

def copy_layer(
    sources: Sequence[Selection],
    *,
    parents: Sequence[str],
    upper: str,
    dest: str,
    owner: tuple[int, int] | None,
    mode: str | None = None,
    keep_owner: bool = False,
    clamp_mtime: int | None = None,
    earlier: tuple[str, str] | None = None,
    fingerprints: str | None = None,
) -> Packed:
    """Carries out one COPY: writes an upper folder and digests it as a layer in the same pass.

    Args:
        sources: What to copy, in the Dockerfile's order.
        parents: Layer directories below; they give the destination's folders their attributes
            and say which of its parents are symlinks.
        upper: Existing empty folder on the same file system as the store.
        dest: Absolute path; a trailing `/` makes it a folder.
        owner: Wanted uid and gid, or None for 0:0 (or the source's own with `keep_owner`).
        mode: `--chmod`: octal, or symbolic as in `u=rwX,go=rX`. Folders that are made on the way to
            `dest` are 0755, or what an octal mode says.
        earlier: The layer directory that a like step made before, and the file of its fingerprints. What
            is the same there becomes a hard link: no result depends on it.
        fingerprints: File to write the new layer's fingerprints to.
    Raises:
        CopyError: e.g. a folder onto a file.
    Source: Dockerfile reference, COPY.
    """

def make_directory(
    *, parents: Sequence[str], upper: str, dest: str, owner: tuple[int, int], mode: int = 0o755
) -> Packed:
    """Carries out WORKDIR: `dest` and its missing parents, where the layers below lack them."""

def read_in_layers(layers: Sequence[str], path: str, limit: int = 1 << 20) -> bytes | None:
    """Reads one small file of a stage, symlinks resolved inside it; None where there is none.

    For `/etc/passwd` and `/etc/group`; it needs no mount.
    """

# ---- changes.rs: what a step changed, where overlay cannot tell -----------------------------------

@final
class TreeRecord:
    """A plain tree as it stood, made by `flatten` and not yet given to a container."""

    def __new__(cls, root: str) -> Self:
        """Walks the tree once, and waits (a few milliseconds) until a later change can be told."""

    def changes(self, layers: Sequence[str], upper: str) -> None:
        """Moves what was changed since into `upper`, an empty folder, in the form of a layer directory.

        The tree is of no further use. No container may be at work in it.

        Args:
            layers: What the tree was flattened from, base first.
            upper: On the tree's file system.
        """

# ---- sandbox.rs: namespaces, mounts and containers --------------------------------------------

@final
class Namespace:
    """What this process runs as, once `enter_namespace` returned."""

    kind: Literal["root", "mapped", "single"]
    """`root`: real privilege; `mapped`: a range of ids; `single`: one id only."""
    uid_map: list[tuple[int, int, int]]
    """(first id inside, first id outside, count)."""
    gid_map: list[tuple[int, int, int]]
    reason: str
    """Why not `mapped`, with what to install or write to get it; empty where it is `mapped` or `root`."""

def enter_namespace(*, single: bool = False) -> Namespace:
    """Makes this process root over its own ids, with private mounts (DESIGN D1).

    Must be called before the process has a second thread. Calling it again returns the same value.
    With CAP_SYS_ADMIN it unshares the mount namespace alone.

    Args:
        single: True asks for one id even where a range is at hand (for tests).
    Raises:
        SandboxError: the kernel refuses user namespaces, or the process already has threads.
    """

def mount_overlay(
    target: str, *, lowers: Sequence[str], upper: str | None = None, work: str | None = None
) -> None:
    """Mounts layer directories, base first, at `target`; read-only without `upper`.

    Raises:
        SandboxError: refused; `.how_to_fix` says why where that can be told.
    """

def mount_memory(target: str) -> None:
    """Mounts an empty folder at `target` that lives in memory alone, where nothing is executed.

    What is in it never reaches a disk, and is gone with the mount or the process.

    Raises:
        SandboxError: refused.
    """

def unmount(target: str) -> None:
    """Detaches a mount and all below it. Not being a mount is no error."""

def wait_for_lock(file: int, *, shared: bool = False, at_most_seconds: float | None = None) -> bool:
    """Waits until this open file has its lock (flock(2)), for itself or with other sharers.

    `stop_everything` ends the wait. The lock goes when the descriptor is closed, or with the process.

    Args:
        at_most_seconds: When to give up; None for never.
    Returns:
        Whether it has the lock.
    """

@final
class Container:
    """One container of the build, from an OCI runtime-spec, started by `spawn`."""

    pid: int

    def wait(self) -> int:
        """Waits for its end. Must be called by the thread that spawned it.

        Returns:
            The exit code; 128 plus the signal's number where a signal ended it.
        """

    def kill(self) -> None:
        """Ends every process of it at once; safe from any thread, at any time."""

def spawn(spec: str, *, output: int) -> Container:
    """Starts a container; it dies with this process.

    Args:
        spec: OCI runtime-spec v1.1 configuration as JSON: root, mounts, process (args, env, cwd, user,
            capabilities, rlimits, noNewPrivileges), hostname, linux (namespaces, maskedPaths,
            readonlyPaths, seccomp). `root.path` is mounted already.
        output: File descriptor for the container's standard output and error; input is empty.
    Raises:
        SandboxError: a step was refused, with its name; a program that is not found or not executable
            is no such error: its exit code is 127 or 126 and a line on `output` says why.
    """

def default_seccomp(*, emulate_owners: bool = False) -> str:
    """The default system-call list as runtime-spec JSON (`linux.seccomp`).

    Args:
        emulate_owners: With one id only: chown, setuid and their kin report success and do nothing.
    """

# ---- outside.rs: programs of the host, as the real user ------------------------------------------

def start_outside() -> None:
    """Forks the small process that runs programs outside the namespace (DESIGN D1).

    Must be called before `enter_namespace`, while the process has one thread. It dies with this
    process. Calling it again does nothing.

    Raises:
        SandboxError: the process has threads already.
    """

def run_outside(
    argv: Sequence[str],
    *,
    env: Sequence[tuple[str, str]],
    cwd: str,
    stdin: bytes = ...,
    seconds: float | None = None,
) -> tuple[int, bytes, bytes]:
    """Runs a program to its end, outside where `start_outside` was called, else in this namespace.

    It has a session of its own and no terminal; an interrupt of this process ends it and all that it
    started. It inherits this process's environment but for `GIT_*` (`GIT_SSH*` and `GIT_SSL*` stay)
    and proxies.

    Args:
        argv: The program, looked up in PATH, and its arguments. No shell sees them.
        env: Variables over those that it inherits.
        cwd: Folder that it starts in.
        seconds: Time that it has; then it is ended. None for no limit.
    Returns:
        Its exit code (128 plus the number of a signal), and the first 64 MiB of its output and errors.
    Raises:
        OSError: there is no such program, or it cannot be run.
        TimeoutError: its time was over.
    """
