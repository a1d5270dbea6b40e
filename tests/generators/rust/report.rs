//! What the drivers in Rust share: a line tells how a step went, and the next one follows in any case.

use std::error::Error;
use std::fmt::Debug;

pub type Told = Result<String, Box<dyn Error>>;

/// Prints `ok NAME [what it read]`, or `FAIL NAME: why`.
pub async fn step(name: &str, work: impl Future<Output = Told>) {
    match work.await {
        Ok(told) => println!("ok {name} {told}"),
        Err(why) => println!("FAIL {name}: {}", why.to_string().replace('\n', " ")),
    }
}

pub fn want<Read: PartialEq<Right> + Debug, Right: Debug>(
    what: &str,
    read: Read,
    right: Right,
) -> Result<(), Box<dyn Error>> {
    if read == right {
        return Ok(());
    }
    Err(format!("{what} is {read:?}, want {right:?}").into())
}

/// The server's URL, that of the server of tomorrow, and the large region's size.
pub fn arguments() -> (String, String, i64) {
    let [url, tomorrow, large_bytes] = std::env::args().skip(1).collect::<Vec<_>>().try_into().expect("three arguments");
    (url, tomorrow, large_bytes.parse().expect("a number of bytes"))
}

/// What a step says that has nothing to tell.
pub fn nothing() -> Told {
    Ok(String::new())
}
