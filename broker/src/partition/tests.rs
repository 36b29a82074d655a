//! Histories of a partition against a plain model, and each rule by name.
