//! What `sol!` makes of the artifacts. Of each contract there are its calls, events, errors and structs, and its code as
//! `BYTECODE` and `DEPLOYED_BYTECODE`.

#![allow(missing_docs, unreachable_pub, clippy::all)]

use alloy::sol;

sol! {
    #[derive(Debug, PartialEq, Eq)]
    Hub,
    "artifacts/Hub.json"
}

sol! {
    #[derive(Debug, PartialEq, Eq)]
    Outbox,
    "artifacts/Outbox.json"
}

sol! {
    #[derive(Debug, PartialEq, Eq)]
    IMessageAttributes,
    "artifacts/IMessageAttributes.json"
}

sol! {
    #[derive(Debug, PartialEq, Eq)]
    Inbox,
    "artifacts/Inbox.json"
}

sol! {
    #[derive(Debug, PartialEq, Eq)]
    TokenBridge,
    "artifacts/TokenBridge.json"
}

sol! {
    #[derive(Debug, PartialEq, Eq)]
    BridgedERC20,
    "artifacts/BridgedERC20.json"
}

sol! {
    #[derive(Debug, PartialEq, Eq)]
    AtomicVault,
    "artifacts/AtomicVault.json"
}

// References, for tests and testnets: no genesis holds them.

sol! {
    #[derive(Debug, PartialEq, Eq)]
    TwinERC20,
    "artifacts/TwinERC20.json"
}

sol! {
    #[derive(Debug, PartialEq, Eq)]
    SwapPool,
    "artifacts/SwapPool.json"
}
