"""Where an image goes when it leaves the store: archives, and a plain root filesystem."""

from img.exporter.archive import Form, Named, read_archive, write_archive

__all__ = ["Form", "Named", "read_archive", "write_archive"]
