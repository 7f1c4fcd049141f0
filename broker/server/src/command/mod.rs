//! The subcommands of `motemq` that are more than a call.

<<<<<<< HEAD
pub(crate) mod acl;
=======
pub(crate) mod passwd;
>>>>>>> e04a383 (Ask sources in an order: certificate, password, JWT, SCRAM)
pub(crate) mod store;
