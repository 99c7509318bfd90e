// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC7786Recipient} from "@openzeppelin/contracts/interfaces/draft-IERC7786.sol";
import {Bytes} from "@openzeppelin/contracts/utils/Bytes.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {InteroperableAddress} from "@openzeppelin/contracts/utils/draft-InteroperableAddress.sol";
import {Calls} from "./Calls.sol";
import {Merkle} from "./Merkle.sol";
import {HUB, OUTBOX} from "./Predeploys.sol";
import {Message, Wire} from "./Wire.sol";

/// @notice Shows that a message is in its source's outbox: the number of messages under a proven root, and the siblings.
struct MessageProof {
    uint64 count;
    bytes32[] path;
}

/// @notice The coin that stands here on account of another rollup, in wei.
struct Account {
    /// What messages from there may take: what {Inbox.fund} gave, and what was delivered there and has not come back.
    uint128 free;
    /// What was sent there and is, as far as is known here, neither delivered nor refunded: it is kept for refunds.
    uint128 inFlight;
    /// Sum of the messages from there that were delivered here.
    uint128 received;
    /// Sum of the messages from here that were delivered there, as far as is known here.
    uint128 acknowledged;
}

/// @title The gateway into a rollup (ERC-7786 destination), and the escrow of its native coin
/// @notice Anyone may deliver. A message is delivered at most once, and never after it has expired; a message whose
/// recipient fails stays, and can be tried again with more gas until its deadline. Nobody owns this contract.
///
/// Coin: what is sent to another rollup is locked here, and what arrives from there is paid out of it. So no rollup's supply
/// of coin ever changes by messages, and a rollup whose operators lie can take no more than went out to it (and what was
/// given by {fund}). Each message with a value tells how much has been delivered on the other side; only that much is free for
/// messages from there, so that what is still on its way can always be refunded.
contract Inbox is ReentrancyGuardTransient {
    using SafeCast for uint256;

    /// @notice What has become of a message here.
    enum Status {
        Open,
        Delivered,
        Expired
    }

    /// @notice What is known at the source of a message that came back.
    enum Returned {
        No,
        Expired,
        Refunded
    }

    /// Gas kept for what follows a recipient's failure.
    uint256 private constant AFTERWARDS = 30_000;

    /// Two bits for each message: a word holds 128.
    mapping(uint64 source => mapping(uint256 word => uint256)) private _settled;
    /// @notice The coin that stands here on account of each other rollup. Their sum is what this contract holds.
    mapping(uint64 rollup => Account) public accounts;
    /// @notice Messages from here that another rollup says have expired there. Whether a message with such an id was ever
    /// sent, and to that rollup, is for whoever relies on it to check: the id commits to both.
    mapping(uint64 destination => mapping(bytes32 id => Returned)) public returned;

    /// @notice Coin was given to what messages from a rollup may take.
    event Funded(uint64 indexed rollup, uint256 value);
    /// @notice A message was delivered.
    event MessageDelivered(bytes32 indexed id, uint64 indexed source, uint64 index);
    /// @notice The recipient failed; `reason` is the first word of what it returned.
    event DeliveryFailed(bytes32 indexed id, uint64 indexed source, uint64 index, bytes32 reason);
    /// @notice A message can no longer be delivered here.
    event MessageExpired(bytes32 indexed id, uint64 indexed source, uint64 index);
    /// @notice A message that was sent from here has expired at its destination.
    event MessageReturned(bytes32 indexed id, uint64 indexed destination);
    /// @notice The value of a message that expired was paid back.
    event MessageRefunded(bytes32 indexed id, address to, uint256 value);

    error NotOutbox(address caller);
    /// @notice Coin can be locked only for a registered rollup.
    error UnknownRollup(uint64 rollup);
    /// @notice The message was delivered or has expired.
    error AlreadySettled(uint64 source, uint64 index);
    /// @notice The message is for another rollup.
    error WrongDestination(uint64 rollup, uint64 chain);
    /// @notice The source is not registered with this chain id: {Hub.register}.
    error WrongSource(uint64 rollup, uint64 chain);
    /// @notice The proof leads to no root that {Hub.proveCheckpoint} knows.
    error UnknownOutboxRoot(uint64 source, bytes32 root);
    error WrongPayload();
    error DeadlinePassed(uint64 deadline);
    error DeadlineNotPassed(uint64 deadline);
    /// @notice An earlier ordered message of the same sender is neither delivered nor expired.
    error OutOfOrder(uint64 previous);
    error GasBelowStated(uint64 stated);
    /// @notice The sender or the recipient is no account of 20 bytes. The message can only expire.
    error NotAnAddress();
    /// @notice Not enough coin stands here on the rollup's account. A message waits until more went there, or expires.
    error CreditExceeded(uint64 rollup, uint256 credit);
    /// @notice A notice does not come from the Inbox of its source.
    error BadNotice();
    /// @notice The message has not expired, or was refunded, or carried nothing.
    error NothingToRefund(bytes32 id);
    error RefundFailed(address to);
    /// @notice The recipient failed; the first word of what it returned. Never leaves this contract.
    error Refused(bytes32 reason);
    error NotSelf(address caller);

    /// @notice Locks the coin of a message to `rollup`.
    /// @return received what {Message.received} is to tell there
    function lock(uint64 rollup) external payable returns (uint128 received) {
        require(msg.sender == address(OUTBOX), NotOutbox(msg.sender));
        Account storage account = accounts[rollup];
        account.inFlight += msg.value.toUint128();
        return account.received;
    }

    /// @notice Gives coin, for good, to what messages from `rollup` may take. This is how two rollups that share a coin begin;
    /// without it coin can only return to where it came from.
    function fund(uint64 rollup) external payable {
        require(HUB.chainOf(rollup) != 0, UnknownRollup(rollup));
        accounts[rollup].free += msg.value.toUint128();
        emit Funded(rollup, msg.value);
    }

    /// @notice What has become of a message.
    function status(uint64 source, uint64 index) public view returns (Status) {
        return Status((_settled[source][index >> 7] >> ((index & 127) * 2)) & 3);
    }

    /// @notice Delivers a message.
    /// @param gasLimit gas for the recipient, at least what the message states
    /// @return delivered false if the recipient failed; the message then stays as it was
    function deliver(Message calldata message, bytes calldata payload, MessageProof calldata proof, uint256 gasLimit)
        external
        nonReentrant
        returns (bool delivered)
    {
        Message memory m = message;
        bytes32 id = _verify(m, proof);
        require(block.timestamp <= m.deadline, DeadlinePassed(m.deadline));
        require(keccak256(payload) == m.payloadHash, WrongPayload());
        if (m.previous != 0) {
            require(status(m.source, m.previous - 1) != Status.Open, OutOfOrder(m.previous - 1));
        }
        _settle(m, Status.Delivered);
        if (m.kind == Wire.NOTICE) {
            _takeNotice(m, payload);
            delivered = true;
        } else {
            delivered = _call(message, id, payload, gasLimit);
        }
        if (delivered) emit MessageDelivered(id, m.source, m.index);
    }

    /// @notice Ends a message whose deadline has passed, and tells its source.
    function expire(Message calldata message, MessageProof calldata proof) external nonReentrant {
        Message memory m = message;
        bytes32 id = _verify(m, proof);
        require(block.timestamp > m.deadline, DeadlineNotPassed(m.deadline));
        _settle(m, Status.Expired);
        emit MessageExpired(id, m.source, m.index);
        OUTBOX.sendNotice(m.source, m.sourceChain, id);
    }

    /// @notice Pays the value of an expired message to the account that it names for refunds.
    function refund(Message calldata message) external nonReentrant {
        _refund(message, _address(message.refund));
    }

    /// @notice The same to another account, for the account that it names.
    function refundTo(Message calldata message, address to) external nonReentrant {
        require(Wire.account(msg.sender) == message.refund, NothingToRefund(Wire.messageId(message)));
        _refund(message, to);
    }

    /// @notice Calls a recipient in a frame of its own, which is undone if the recipient does not answer as it must.
    function run(Message calldata m, bytes32 id, bytes calldata payload, uint256 gasLimit) external {
        require(msg.sender == address(this), NotSelf(msg.sender));
        bool plain = m.kind == Wire.TRANSFER;
        bytes memory data;
        if (!plain) {
            bytes memory sender = InteroperableAddress.formatEvmV1(m.sourceChain, _address(m.sender));
            data = abi.encodeCall(IERC7786Recipient.receiveMessage, (id, sender, payload));
        }
        (bool ok, uint256 size, bytes32 word) = Calls.attempt(_address(m.recipient), m.value, gasLimit, data);
        bool answered = size >= 32 && word == bytes32(IERC7786Recipient.receiveMessage.selector);
        require(ok && (plain || answered), Refused(word));
    }

    function _settle(Message memory m, Status to) private {
        // Bits of an open message are 0.
        _settled[m.source][m.index >> 7] |= uint256(to) << ((m.index & 127) * 2);
    }

    function _reopen(Message calldata m) private {
        _settled[m.source][m.index >> 7] &= ~(uint256(3) << ((m.index & 127) * 2));
    }

    /// Reverts unless the message is for this rollup, open, and in an outbox that operators have certified.
    function _verify(Message memory m, MessageProof calldata proof) private view returns (bytes32 id) {
        // First, since it is what two relayers that meet will find, and it is cheap.
        require(status(m.source, m.index) == Status.Open, AlreadySettled(m.source, m.index));
        id = Wire.messageId(m);
        (bool fits, bytes32 tree) = Merkle.rootFromPath(id, m.index, proof.count, proof.path);
        bytes32 root = Merkle.seal(proof.count, tree);
        (uint64 self, uint64 chain, bool proven) = HUB.lookup(m.source, root);
        require(fits && proven, UnknownOutboxRoot(m.source, root));
        bool here = m.destination == self && m.destinationChain == block.chainid;
        require(here, WrongDestination(m.destination, m.destinationChain));
        // The hub, not the source, says which chain id is the source's.
        require(chain != 0 && m.sourceChain == chain, WrongSource(m.source, m.sourceChain));
    }

    function _takeNotice(Message memory m, bytes calldata payload) private {
        require(m.sender == Wire.account(address(this)) && payload.length == 32, BadNotice());
        bytes32 id = bytes32(payload);
        if (returned[m.source][id] == Returned.No) {
            returned[m.source][id] = Returned.Expired;
            emit MessageReturned(id, m.source);
        }
    }

    /// Calls the recipient. The message is settled already, so that the recipient cannot have it twice; if it fails, which
    /// undoes whatever it did, the message is opened again.
    function _call(Message calldata m, bytes32 id, bytes calldata payload, uint256 gasLimit) private returns (bool) {
        require(gasLimit >= m.gasLimit, GasBelowStated(m.gasLimit));
        require(uint256(m.sender | m.recipient) >> 160 == 0, NotAnAddress());
        if (m.value > 0) _take(m);
        try this.run{gas: gasleft() - AFTERWARDS}(m, id, payload, gasLimit) {
            return true;
        } catch (bytes memory answer) {
            // Anything but a refusal is this contract's own: there was not enough gas to find out.
            require(bytes4(answer) == Refused.selector, Calls.NotEnoughGas(gasLimit));
            _reopen(m);
            if (m.value > 0) {
                accounts[m.source].free += m.value;
                accounts[m.source].received -= m.value;
            }
            emit DeliveryFailed(id, m.source, m.index, bytes32(Bytes.slice(answer, 4)));
            return false;
        }
    }

    /// Takes a message's value from the account of its source.
    function _take(Message calldata m) private {
        Account memory account = accounts[m.source];
        if (m.received > account.acknowledged) {
            // A source that tells more than was sent is lying; it frees no more than there is.
            uint128 freed = m.received - account.acknowledged;
            if (freed > account.inFlight) freed = account.inFlight;
            account.acknowledged = m.received;
            account.inFlight -= freed;
            account.free += freed;
        }
        require(m.value <= account.free, CreditExceeded(m.source, account.free));
        account.free -= m.value;
        account.received += m.value;
        accounts[m.source] = account;
    }

    function _refund(Message calldata message, address to) private {
        bytes32 id = Wire.messageId(message);
        uint64 destination = message.destination;
        uint128 value = message.value;
        bool due = message.source == HUB.rollup() && value > 0 && returned[destination][id] == Returned.Expired;
        require(due, NothingToRefund(id));
        uint128 held = accounts[destination].inFlight;
        require(value <= held, CreditExceeded(destination, held));
        returned[destination][id] = Returned.Refunded;
        accounts[destination].inFlight = held - value;
        emit MessageRefunded(id, to, value);
        (bool paid,) = to.call{value: value}("");
        require(paid, RefundFailed(to));
    }

    function _address(bytes32 account) private pure returns (address) {
        return address(uint160(uint256(account)));
    }
}
