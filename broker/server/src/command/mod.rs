//! The subcommands of `motemq` that are more than a call.

pub(crate) mod acl;
pub(crate) mod admin;
pub(crate) mod passwd;
pub(crate) mod store;
