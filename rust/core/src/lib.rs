//! The hot path of `img`: what must be fast, or must talk to the kernel. No Python here.
//!
//! Reading goes `blob -> tar -> apply` (a layer becomes a directory); writing goes
//! `walk/copy -> pack -> compress` (a directory becomes a layer). `stack` looks paths up across
//! the directories of several layers. `idmap`, `mounts`, `sandbox` and `seccomp` run the build's
//! containers. Every fallible function returns [`Error`].

pub mod apply;
pub mod archive;
pub mod attrs;
pub mod batch;
pub mod blob;
pub mod blocks;
pub mod cancel;
pub mod changes;
pub mod chmod;
pub mod chunks;
pub mod compress;
pub mod copy;
pub mod copy_object;
pub mod counted;
pub mod cut;
pub mod deflate;
mod detach;
pub mod entry;
pub mod error;
pub mod explore;
mod first_names;
pub mod flatten;
pub mod glob;
pub mod growth;
pub mod idmap;
pub mod ignore;
pub mod index;
pub mod inflate;
pub mod inventory;
mod kernel;
pub mod listing;
pub mod lock;
pub mod memo;
mod monitor;
pub mod mounts;
pub mod outside;
pub mod pack;
mod payload;
pub mod pipeline;
pub mod place;
pub mod relink;
pub mod remove;
pub mod root;
mod rootfs;
pub mod sandbox;
pub mod seccomp;
pub mod select;
pub mod settle;
pub mod source;
pub mod spec;
pub mod stack;
pub mod tar_read;
pub mod tar_write;
pub mod tree;

pub use error::{Error, Result};
