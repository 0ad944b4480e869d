"""The nouns of OCI as frozen values: references, descriptors, manifests, configs, images."""

from img.errors import InvalidDocument
from img.oci.config import History, ImageConfig, chain_id
from img.oci.descriptor import Descriptor, is_digest, sha256
from img.oci.image import Image, Layer
from img.oci.manifest import Index, Manifest, parse
from img.oci.platform import Platform
from img.oci.reference import Reference

__all__ = [
    "Descriptor",
    "History",
    "Image",
    "ImageConfig",
    "Index",
    "InvalidDocument",
    "Layer",
    "Manifest",
    "Platform",
    "Reference",
    "chain_id",
    "is_digest",
    "parse",
    "sha256",
]
