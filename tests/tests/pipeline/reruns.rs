use crate::tests;
tests![];
