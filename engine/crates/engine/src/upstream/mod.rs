//! Data path.
