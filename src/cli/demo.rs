//! stub
use clap::Args;
use super::{Common, Failure};
#[derive(Args, Debug)]
pub(super) struct Demo {}
impl Demo { pub(super) async fn run(self, _: &Common) -> Result<(), Failure> { Ok(()) } }
