//! The object tier: sealed ranges of a raft group's log as objects in a bucket.
//!
//! What exists is the naming of objects, on which fencing rests: a leader that has been replaced
//! writes under its own, lower term and can never overwrite what its successor wrote. Upload,
//! manifests and reads are built on it next.

mod object_name;

pub use object_name::{ObjectName, ObjectNameError};
