// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {AtomicVault} from "./AtomicVault.sol";
import {BridgedERC20} from "./BridgedERC20.sol";
import {Hub} from "./Hub.sol";
import {Inbox} from "./Inbox.sol";
import {Outbox} from "./Outbox.sol";
import {TokenBridge} from "./TokenBridge.sol";

// The contracts stand in each rollup's genesis at the same addresses, so a counterpart on another rollup is known by its
// address alone. The first two bytes are "SY".
Hub constant HUB = Hub(0x5359000000000000000000000000000000000001);
Outbox constant OUTBOX = Outbox(0x5359000000000000000000000000000000000002);
Inbox constant INBOX = Inbox(0x5359000000000000000000000000000000000003);
TokenBridge constant BRIDGE = TokenBridge(0x5359000000000000000000000000000000000004);
BridgedERC20 constant BRIDGED = BridgedERC20(0x5359000000000000000000000000000000000005);
AtomicVault constant VAULT = AtomicVault(0x5359000000000000000000000000000000000006);
