// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC7786GatewaySource} from "@openzeppelin/contracts/interfaces/draft-IERC7786.sol";
import {InteroperableAddress} from "@openzeppelin/contracts/utils/draft-InteroperableAddress.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Accumulator, Accumulators} from "./Merkle.sol";
import {HUB, INBOX} from "./Predeploys.sol";
import {Message, Wire} from "./Wire.sol";

/// @title What an application may ask of {Outbox} besides delivery
/// @notice Attributes of ERC-7786: each is the function's selector and its ABI-encoded arguments, at most once.
interface IMessageAttributes {
    /// @notice Last second, by the destination's clock, at which the message may be delivered. Default: 7 days from now.
    function deadline(uint64 timestamp) external;
    /// @notice Gas for the recipient. Default: 200,000.
    function gasLimit(uint64 amount) external;
    /// @notice Not to be delivered before the sender's last ordered message to that rollup is delivered or has expired.
    function ordered() external;
    /// @notice Who gets the value back if the message expires. Default: the sender.
    function refundTo(address account) external;
    /// @notice There is no payload: send the value as a wallet would, by a call without data.
    function transfer() external;
}

/// @title The gateway out of a rollup (ERC-7786 source)
/// @notice Each message is a leaf of an append-only tree, whose root each checkpoint carries. The node reads that root from
/// storage: slots 0 to 48 are an {Accumulator}. Nobody owns this contract.
contract Outbox is IERC7786GatewaySource {
    using Accumulators for Accumulator;
    using InteroperableAddress for bytes;
    using SafeCast for uint256;

    /// Longest payload, bytes. With its proof it must fit into a transaction of the hub.
    uint256 public constant PAYLOAD_MAX = 32_768;
    /// Most gas that may be asked for a recipient.
    uint64 public constant GAS_MAX = 5_000_000;
    uint64 public constant GAS_DEFAULT = 200_000;
    uint64 public constant LIFETIME_MAX = 365 days;
    uint64 public constant LIFETIME_DEFAULT = 7 days;

    Accumulator private _messages;
    /// 1 + index of the last ordered message from a sender to a rollup.
    mapping(address sender => mapping(uint64 destination => uint64)) private _lastOrdered;

    /// @notice All that a relayer needs besides the payload, which is in `MessageSent`.
    event MessageAppended(uint64 indexed index, bytes32 indexed id, Message message);

    /// @notice No rollup with this chain id is registered, or it is this one.
    error UnknownDestination(uint256 chain);
    /// @notice A message must go to somebody.
    error NoRecipient();
    /// @notice Above {PAYLOAD_MAX}, or a transfer that has a payload.
    error BadPayload(uint256 length);
    /// @notice An attribute's arguments are not as its signature says, or are out of bounds.
    error BadAttribute(bytes4 selector);
    /// @notice An attribute is given twice.
    error RepeatedAttribute(bytes4 selector);
    /// @notice Only the Inbox tells that messages have expired.
    error NotInbox(address caller);

    /// @inheritdoc IERC7786GatewaySource
    function supportsAttribute(bytes4 selector) public pure returns (bool) {
        return selector == IMessageAttributes.deadline.selector || selector == IMessageAttributes.gasLimit.selector
            || selector == IMessageAttributes.ordered.selector || selector == IMessageAttributes.refundTo.selector
            || selector == IMessageAttributes.transfer.selector;
    }

    /// @notice Number of messages so far.
    function count() external view returns (uint64) {
        return _messages.count;
    }

    /// @notice The root that a checkpoint carries: `keccak(count u64 | tree root)`.
    function root() external view returns (bytes32) {
        return _messages.sealedRoot();
    }

    /// @notice Sends a message, with the native coin that comes with the call.
    /// @dev The coin goes to the Inbox, which holds it until a message from there, or a refund, needs it.
    /// @param recipient ERC-7930 address with the chain id of a registered rollup and 20 bytes of address
    /// @return sendId the message's id, never zero: somebody has to deliver it
    function sendMessage(bytes calldata recipient, bytes calldata payload, bytes[] calldata attributes)
        external
        payable
        returns (bytes32 sendId)
    {
        Message memory m = _readAttributes(attributes);
        (uint256 chain, address to) = recipient.parseEvmV1Calldata();
        require(to != address(0), NoRecipient());
        bool plain = m.kind == Wire.TRANSFER;
        require(payload.length <= PAYLOAD_MAX && (!plain || payload.length == 0), BadPayload(payload.length));
        m.destination = chain > type(uint64).max ? 0 : HUB.rollupOf(uint64(chain));
        m.source = HUB.rollup();
        require(m.destination != 0 && m.destination != m.source, UnknownDestination(chain));
        m.destinationChain = uint64(chain);
        m.sender = Wire.account(msg.sender);
        m.recipient = Wire.account(to);
        m.value = msg.value.toUint128();
        if (msg.value > 0) m.received = INBOX.lock{value: msg.value}(m.destination);
        m.payloadHash = keccak256(payload);
        if (m.previous != 0) {
            m.previous = _lastOrdered[msg.sender][m.destination];
            _lastOrdered[msg.sender][m.destination] = _messages.count + 1;
        }
        sendId = _append(m);
        emit MessageSent(
            sendId,
            InteroperableAddress.formatEvmV1(block.chainid, msg.sender),
            recipient,
            payload,
            msg.value,
            attributes
        );
    }

    /// @notice Tells the Inbox of `destination` that the message `id`, which came from there, has expired here.
    /// @dev A notice has no deadline, so it cannot expire in its turn.
    function sendNotice(uint64 destination, uint64 destinationChain, bytes32 id) external {
        require(msg.sender == address(INBOX), NotInbox(msg.sender));
        Message memory m;
        m.kind = Wire.NOTICE;
        m.source = HUB.rollup();
        m.destination = destination;
        m.destinationChain = destinationChain;
        m.deadline = type(uint64).max;
        m.sender = Wire.account(address(INBOX));
        m.recipient = m.sender;
        m.refund = m.sender;
        m.payloadHash = keccak256(abi.encode(id));
        _append(m);
    }

    function _append(Message memory m) private returns (bytes32 id) {
        m.sourceChain = block.chainid.toUint64();
        m.index = _messages.count;
        id = Wire.messageId(m);
        _messages.append(id);
        emit MessageAppended(m.index, id, m);
    }

    /// The message's fields that attributes decide. `previous` is 1 if it is to be ordered.
    function _readAttributes(bytes[] calldata attributes) private view returns (Message memory m) {
        m.gasLimit = GAS_DEFAULT;
        m.refund = Wire.account(msg.sender);
        for (uint256 i; i < attributes.length; i++) {
            bytes calldata attribute = attributes[i];
            bytes4 selector = bytes4(attribute);
            require(attribute.length >= 4 && supportsAttribute(selector), UnsupportedAttribute(selector));
            // There are five attributes, so this loop is short: a list with a repetition ends at it.
            for (uint256 j; j < i; j++) {
                require(bytes4(attributes[j]) != selector, RepeatedAttribute(selector));
            }
            _readAttribute(m, selector, attribute[4:]);
        }
        if (m.deadline == 0) m.deadline = uint64(block.timestamp) + LIFETIME_DEFAULT;
    }

    function _readAttribute(Message memory m, bytes4 selector, bytes calldata arguments) private view {
        bool bare = selector == IMessageAttributes.ordered.selector || selector == IMessageAttributes.transfer.selector;
        require(arguments.length == (bare ? 0 : 32), BadAttribute(selector));
        if (selector == IMessageAttributes.ordered.selector) {
            m.previous = 1;
        } else if (selector == IMessageAttributes.transfer.selector) {
            m.kind = Wire.TRANSFER;
        } else if (selector == IMessageAttributes.refundTo.selector) {
            m.refund = Wire.account(abi.decode(arguments, (address)));
            require(m.refund != 0, BadAttribute(selector));
        } else if (selector == IMessageAttributes.gasLimit.selector) {
            m.gasLimit = abi.decode(arguments, (uint64));
            require(m.gasLimit <= GAS_MAX, BadAttribute(selector));
        } else {
            m.deadline = abi.decode(arguments, (uint64));
            bool inTime = m.deadline > block.timestamp && m.deadline <= block.timestamp + LIFETIME_MAX;
            require(inTime, BadAttribute(selector));
        }
    }
}
