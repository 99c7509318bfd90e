// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {HubProof} from "../../src/Hub.sol";
import {Inbox, MessageProof} from "../../src/Inbox.sol";
import {Outbox} from "../../src/Outbox.sol";
import {BRIDGE, HUB, INBOX, OUTBOX, VAULT} from "../../src/Predeploys.sol";
import {Checkpoint, Message, Wire} from "../../src/Wire.sol";
import {IERC7786GatewaySource} from "@openzeppelin/contracts/interfaces/draft-IERC7786.sol";
import {TwinERC20} from "../../src/TwinERC20.sol";
import {AtomicVault} from "../../src/AtomicVault.sol";
import {Base} from "./Base.sol";
import {Tree} from "./Tree.sol";
import {Vm, vm} from "./Vm.sol";

/// Two rollups, 1 and 2, on one EVM: the accounts that both have (the predeploys, a twin token) are exchanged when a test goes
/// from one to the other, so that the real code runs at its real addresses. And a hub that certifies their outboxes.
abstract contract Network is Base {
    uint64 internal constant A = 1;
    uint64 internal constant B = 2;
    /// A rollup whose operators lie: it exists only in what is certified of it.
    uint64 internal constant LIAR = 3;

    struct Copy {
        mapping(address account => mapping(bytes32 slot => bytes32)) storages;
        mapping(address account => uint256) balances;
    }

    /// A message that some outbox holds, as bytes: structures of calldata do not go into storage.
    struct Sent {
        bytes message;
        bytes payload;
    }

    address[] private twice;
    mapping(uint64 rollup => Copy) private copies;
    mapping(address account => bytes32[]) private slots;
    mapping(address account => mapping(bytes32 slot => bool)) private known;
    uint64 internal current;

    mapping(uint64 rollup => bytes32[]) internal outboxes;
    Sent[] internal sent;
    /// Legs that voted yes: bundle and leg.
    mapping(bytes32 id => mapping(uint8 leg => bool)) internal votes;

    function start() internal {
        install(0);
        twice = [BEACON_ROOTS, address(HUB), address(OUTBOX), address(INBOX), address(BRIDGE), address(VAULT)];
        for (uint64 rollup = A; rollup <= B; rollup++) {
            copies[rollup].storages[address(HUB)][0] = bytes32(uint256(rollup));
        }
        track(address(HUB), 0);
        for (uint64 rollup = A; rollup <= B; rollup++) {
            enter(rollup);
            for (uint64 other = A; other <= LIAR; other++) {
                register(other);
            }
            depart();
        }
    }

    /// From now on `account` is one account on each rollup. Its code is the same.
    function separate(address account) internal {
        twice.push(account);
    }

    /// A twin token whose home is A, with its supply there.
    function newTwin(address holder, uint256 supply) internal returns (TwinERC20 twin) {
        // Made on B, where it issues nothing, so that no storage is written before it is one account on each.
        enter(B);
        twin = new TwinERC20("Twin", "TWN", A, holder, supply);
        depart();
        separate(address(twin));
        enter(A);
        vm.prank(address(BRIDGE));
        twin.crosschainMint(holder, supply);
        depart();
    }

    function track(address account, bytes32 slot) private {
        if (known[account][slot]) return;
        known[account][slot] = true;
        slots[account].push(slot);
    }

    /// What follows, until {depart}, happens on `rollup`.
    function enter(uint64 rollup) internal {
        require(current == 0, "on a rollup already");
        current = rollup;
        vm.chainId(chainOf(rollup));
        for (uint256 i; i < twice.length; i++) {
            address account = twice[i];
            vm.deal(account, copies[rollup].balances[account]);
            for (uint256 j; j < slots[account].length; j++) {
                bytes32 slot = slots[account][j];
                vm.store(account, slot, copies[rollup].storages[account][slot]);
            }
        }
        vm.recordLogs();
        vm.record();
    }

    function depart() internal {
        for (uint256 i; i < twice.length; i++) {
            address account = twice[i];
            (, bytes32[] memory writes) = vm.accesses(account);
            for (uint256 j; j < writes.length; j++) {
                track(account, writes[j]);
            }
            copies[current].balances[account] = account.balance;
            for (uint256 j; j < slots[account].length; j++) {
                bytes32 slot = slots[account][j];
                copies[current].storages[account][slot] = vm.load(account, slot);
            }
        }
        readLogs(vm.getRecordedLogs());
        current = 0;
    }

    modifier on(uint64 rollup) {
        enter(rollup);
        _;
        depart();
    }

    /// What a relayer and a node read: messages with their payloads, and votes.
    function readLogs(Vm.Log[] memory logs) private {
        bytes memory notice;
        for (uint256 i; i < logs.length; i++) {
            bytes32 topic = logs[i].topics[0];
            if (logs[i].emitter == address(INBOX) && topic == Inbox.MessageExpired.selector) {
                notice = abi.encode(logs[i].topics[1]);
            } else if (logs[i].emitter == address(VAULT) && topic == AtomicVault.Prepared.selector) {
                votes[logs[i].topics[1]][uint8(uint256(logs[i].topics[2]))] = true;
            } else if (logs[i].emitter == address(OUTBOX) && topic == Outbox.MessageAppended.selector) {
                outboxes[current].push(logs[i].topics[2]);
                // Of a message that is no notice, the payload comes with the next log.
                sent.push(Sent(logs[i].data, notice));
            } else if (logs[i].emitter == address(OUTBOX) && topic == IERC7786GatewaySource.MessageSent.selector) {
                (,, sent[sent.length - 1].payload,,) = abi.decode(logs[i].data, (bytes, bytes, bytes, uint256, bytes[]));
            }
        }
    }

    function messageAt(uint256 i) internal view returns (Message memory) {
        return abi.decode(sent[i].message, (Message));
    }

    /// The rollup that is entered gets to know what `source`'s outbox holds now.
    function bring(uint64 source) internal {
        if (HUB.outboxRoots(source, Tree.sealedRoot(outboxes[source]))) return;
        certify(source, Tree.sealedRoot(outboxes[source]));
    }

    function proofOf(Message memory m) internal view returns (MessageProof memory) {
        bytes32[] memory leaves = outboxes[m.source];
        return MessageProof(uint64(leaves.length), Tree.path(leaves, m.index));
    }

    /// Delivers message `i` where it is for; false if its recipient failed, reverts with the Inbox.
    function deliver(uint256 i) internal returns (bool delivered) {
        Message memory m = messageAt(i);
        enter(m.destination);
        bring(m.source);
        delivered = INBOX.deliver(m, sent[i].payload, proofOf(m), m.gasLimit);
        depart();
    }

    function expire(uint256 i) internal {
        Message memory m = messageAt(i);
        enter(m.destination);
        bring(m.source);
        INBOX.expire(m, proofOf(m));
        depart();
    }
}
