// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC7786Recipient} from "@openzeppelin/contracts/interfaces/draft-IERC7786.sol";
import {MessageProof} from "../../src/Inbox.sol";
import {INBOX, OUTBOX} from "../../src/Predeploys.sol";
import {Message} from "../../src/Wire.sol";

/// Uses up all gas that there is, at once.
function burn() pure {
    assembly {
        invalid()
    }
}

/// Takes what comes and remembers it.
contract Recipient is IERC7786Recipient {
    uint256 public calls;
    bytes32 public lastId;
    bytes public lastSender;
    bytes public lastPayload;
    uint256 public lastValue;
    uint256 public lastGas;

    function receiveMessage(bytes32 id, bytes calldata sender, bytes calldata payload)
        public
        payable
        virtual
        returns (bytes4)
    {
        lastGas = gasleft();
        require(msg.sender == address(INBOX));
        calls++;
        (lastId, lastSender, lastPayload, lastValue) = (id, sender, payload, msg.value);
        return IERC7786Recipient.receiveMessage.selector;
    }
}

/// Fails, in the way that it is told to, until it is mended.
contract Failing is Recipient {
    enum How {
        No,
        Revert,
        WrongAnswer,
        NoAnswer,
        AllGas,
        ReturnBomb,
        RevertBomb
    }

    How public how;
    error Broken();

    function fail(How how_) external {
        how = how_;
    }

    function receiveMessage(bytes32 id, bytes calldata sender, bytes calldata payload)
        public
        payable
        override
        returns (bytes4)
    {
        // The call counts even where its answer is bad: who delivers must undo it.
        super.receiveMessage(id, sender, payload);
        if (how == How.Revert) revert Broken();
        if (how == How.WrongAnswer) return bytes4(0xdeadbeef);
        if (how == How.AllGas) burn();
        assembly {
            switch sload(how.slot)
            case 3 { stop() }
            case 5 { return(0, 1000000) }
            case 6 { revert(0, 1000000) }
        }
        return IERC7786Recipient.receiveMessage.selector;
    }
}

/// Tries to be paid twice, and to have the rest of the world act while it is called.
contract Reentrant is Recipient {
    Message private m;
    MessageProof private proof;
    bytes private payload;
    uint256 public refused;
    bytes32 public reply;

    function arm(Message calldata m_, MessageProof calldata proof_, bytes calldata payload_) external {
        (m, proof, payload) = (m_, proof_, payload_);
    }

    function receiveMessage(bytes32 id, bytes calldata sender, bytes calldata data)
        public
        payable
        override
        returns (bytes4)
    {
        try INBOX.deliver(m, payload, proof, m.gasLimit) {}
        catch {
            refused++;
        }
        try INBOX.expire(m, proof) {}
        catch {
            refused++;
        }
        try INBOX.refund(m) {}
        catch {
            refused++;
        }
        try INBOX.run(m, id, data, 0) {}
        catch {
            refused++;
        }
        // An answer with all of the value is nothing bad.
        reply = OUTBOX.sendMessage{value: msg.value}(sender, "reply", new bytes[](0));
        return super.receiveMessage(id, sender, data);
    }
}

/// Takes no coin.
contract Refuser {
    bool public willing;

    function mend() external {
        willing = true;
    }

    receive() external payable {
        require(willing);
    }
}
