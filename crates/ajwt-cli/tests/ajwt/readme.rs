//! The README's walk-through, word for word but for the port, which others may have taken.

use ajwt_test_servers::port::free_port;

use crate::{
    support::{Folder, project_file},
    walkthrough::{Shell, assert_printed, blocks},
};

#[test]
fn the_walk_through_works() {
    let readme = project_file("README.md");
    let (_, section) = readme.split_once("## From the command line\n").expect("the section");
    let blocks = blocks(section);
    let [gateway, request, shown, ..] = blocks.as_slice() else { panic!("three blocks are due") };
    assert_eq!([gateway, request, shown].map(|block| block.language), ["sh", "sh", "text"]);

    let folder = Folder::new();
    let port = free_port();
    let mut shell = Shell::new(&folder).with("4180", port);
    let _gateway = shell.serve(gateway.text, port);
    let printed = shell.run(request.text);
    assert_printed(printed.trim_end(), shown.text.trim_end());
}
