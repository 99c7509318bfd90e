// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ERC7786Recipient} from "@openzeppelin/contracts/crosschain/ERC7786Recipient.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/interfaces/IERC20Metadata.sol";
import {IERC7802} from "@openzeppelin/contracts/interfaces/draft-IERC7802.sol";
import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {IERC20, SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {InteroperableAddress} from "@openzeppelin/contracts/utils/draft-InteroperableAddress.sol";
import {ERC165Checker} from "@openzeppelin/contracts/utils/introspection/ERC165Checker.sol";
import {BridgedERC20} from "./BridgedERC20.sol";
import {BRIDGED, HUB, INBOX, OUTBOX} from "./Predeploys.sol";
import {IMessageAttributes} from "./Outbox.sol";
import {Inbox} from "./Inbox.sol";
import {Message, Wire} from "./Wire.sol";

/// @title A token that stands at the same address on its home rollup and on others, and lets {TokenBridge} mint and burn it
interface ITwinToken is IERC7802 {
    /// @notice The rollup on which its supply was issued.
    function homeRollup() external view returns (uint64);
}

/// @notice Where a token of this rollup comes from.
struct Origin {
    /// Its home rollup; 0 for a token that the bridge has not met.
    uint64 home;
    /// Its address there.
    address token;
    /// Whether it is an {ITwinToken}.
    bool twin;
}

/// @notice The payload of the bridge's messages, ABI-encoded.
struct Transfer {
    Origin origin;
    address from;
    address to;
    uint256 amount;
    /// For the token that stands for it on another rollup, cut to 32 bytes, padded with zeros. Only from the home.
    bytes32 name;
    bytes32 symbol;
    uint8 decimals;
}

/// @title Moves ERC-20 tokens between rollups
/// @notice A token has one home, and moves between its home and another rollup. At home it is locked (a twin token is burned),
/// on the others it is minted: a {BridgedERC20} that the bridge makes, or the twin token. Home counts what is out on each
/// rollup and takes no more back from there, so a rollup whose operators lie can take only what went out to it. Nobody
/// owns this contract.
contract TokenBridge is ERC7786Recipient, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;
    using InteroperableAddress for bytes;

    /// Gas for a delivery; the first one of a token makes its {BridgedERC20}.
    uint64 private constant GAS = 400_000;

    /// @notice Where the tokens come from that the bridge has met here.
    mapping(address token => Origin) public originOf;
    /// @notice Of tokens at home here: what is out on another rollup, or on its way between the two.
    mapping(address token => mapping(uint64 rollup => uint256)) public outstanding;
    /// @notice Transfers that were given back.
    mapping(bytes32 sendId => bool) public refunded;

    event TransferSent(bytes32 indexed sendId, address indexed token, address indexed from, bytes to, uint256 amount);
    event TransferReceived(bytes32 indexed receiveId, address indexed token, address indexed to, uint256 amount);
    event TransferRefunded(bytes32 indexed sendId, address indexed token, address indexed to, uint256 amount);
    event TokenBridged(address indexed token, uint64 indexed home, address indexed original);

    error NothingToSend();
    error NoReceiver();
    error NotAToken(address token);
    /// @notice A token moves between its home and one other rollup: to reach a third, go by way of the home.
    error NotItsHome(uint64 home, uint64 rollup);
    /// @notice More would come back from a rollup than is out there.
    error OutstandingExceeded(address token, uint64 rollup, uint256 outstanding);
    /// @notice The token is not of the kind that the message says.
    error OriginMismatch(address token);
    /// @notice The message is not a transfer from here that has expired, or was given back.
    error NotRefundable(bytes32 sendId);

    /// @notice Sends tokens to an account on another rollup. A plain token at home needs an allowance for the bridge.
    /// @param to ERC-7930 address of the receiver
    /// @param deadline last second at which it may arrive, 0 for the Outbox's default; after it, {refund}
    function crosschainTransfer(address token, bytes calldata to, uint256 amount, uint64 deadline)
        external
        nonReentrant
        returns (bytes32 sendId)
    {
        require(amount > 0, NothingToSend());
        (uint256 chain, address receiver) = to.parseEvmV1Calldata();
        // Not the bridge either: it would keep what it gets.
        require(receiver != address(0) && receiver != address(this), NoReceiver());
        uint64 peer = chain > type(uint64).max ? 0 : HUB.rollupOf(uint64(chain));
        Transfer memory transfer;
        transfer.origin = _origin(token);
        transfer.from = msg.sender;
        transfer.to = receiver;
        transfer.amount = _collect(token, transfer.origin, peer, amount);
        if (transfer.origin.home == HUB.rollup()) _describe(transfer, token);
        bytes[] memory attributes = new bytes[](deadline == 0 ? 1 : 2);
        attributes[0] = abi.encodeCall(IMessageAttributes.gasLimit, (GAS));
        if (deadline != 0) attributes[1] = abi.encodeCall(IMessageAttributes.deadline, (deadline));
        sendId = OUTBOX.sendMessage(
            InteroperableAddress.formatEvmV1(chain, address(this)), abi.encode(transfer), attributes
        );
        emit TransferSent(sendId, token, msg.sender, to, transfer.amount);
    }

    /// @notice Gives a transfer back to its sender after it has expired at its destination. Anyone may call.
    function refund(Message calldata message, bytes calldata payload) external nonReentrant {
        Transfer memory transfer = abi.decode(payload, (Transfer));
        _refund(message, payload, transfer, transfer.from);
    }

    /// @notice The same to another account, for its sender: the way out where the token does not pay that one.
    function refundTo(Message calldata message, bytes calldata payload, address to) external nonReentrant {
        Transfer memory transfer = abi.decode(payload, (Transfer));
        require(msg.sender == transfer.from, NotRefundable(Wire.messageId(message)));
        _refund(message, payload, transfer, to);
    }

    /// @notice The address, here, of the token that stands for a plain token of another rollup.
    function bridgedAddress(uint64 home, address token) public view returns (address) {
        return Clones.predictDeterministicAddress(address(BRIDGED), _salt(home, token));
    }

    /// @inheritdoc ERC7786Recipient
    /// @dev Only the Inbox, and only what another rollup's bridge has sent.
    function _isAuthorizedGateway(address gateway, bytes calldata sender) internal view override returns (bool) {
        (, address account) = sender.parseEvmV1Calldata();
        return gateway == address(INBOX) && account == address(this);
    }

    /// @inheritdoc ERC7786Recipient
    function _processMessage(address, bytes32 receiveId, bytes calldata sender, bytes calldata payload)
        internal
        override
        nonReentrant
    {
        (uint256 chain,) = sender.parseEvmV1Calldata();
        Transfer memory transfer = abi.decode(payload, (Transfer));
        address token = _give(transfer, HUB.rollupOf(uint64(chain)), transfer.to);
        emit TransferReceived(receiveId, token, transfer.to, transfer.amount);
    }

    function _refund(Message calldata message, bytes calldata payload, Transfer memory transfer, address to) private {
        bytes32 id = Wire.messageId(message);
        uint64 peer = message.destination;
        // An Inbox that lies about what expired gains no more than it would by a false transfer: `_give` counts both.
        bool due = message.source == HUB.rollup() && message.sender == Wire.account(address(this))
            && keccak256(payload) == message.payloadHash && INBOX.returned(peer, id) != Inbox.Returned.No;
        require(due && !refunded[id], NotRefundable(id));
        refunded[id] = true;
        address token = _give(transfer, peer, to);
        emit TransferRefunded(id, token, to, transfer.amount);
    }

    /// Takes tokens from the caller to send them to `peer`; returns how many arrived.
    function _collect(address token, Origin memory origin, uint64 peer, uint256 amount) private returns (uint256) {
        if (origin.home != HUB.rollup()) {
            require(origin.home == peer, NotItsHome(origin.home, peer));
            IERC7802(token).crosschainBurn(msg.sender, amount);
            return amount;
        }
        if (origin.twin) {
            IERC7802(token).crosschainBurn(msg.sender, amount);
        } else {
            // A token may keep a fee.
            uint256 before = IERC20(token).balanceOf(address(this));
            IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
            amount = IERC20(token).balanceOf(address(this)) - before;
            require(amount > 0, NothingToSend());
        }
        outstanding[token][peer] += amount;
        return amount;
    }

    /// Gives tokens that come back, or come, from `peer`; returns which token they are here.
    function _give(Transfer memory transfer, uint64 peer, address to) private returns (address token) {
        Origin memory origin = transfer.origin;
        token = origin.token;
        if (origin.home == HUB.rollup()) {
            uint256 out = outstanding[token][peer];
            require(transfer.amount <= out, OutstandingExceeded(token, peer, out));
            outstanding[token][peer] = out - transfer.amount;
            require(originOf[token].twin == origin.twin, OriginMismatch(token));
            if (!origin.twin) {
                IERC20(token).safeTransfer(to, transfer.amount);
                return token;
            }
        } else {
            // Only the home may say that there is more of it.
            require(origin.home == peer, NotItsHome(origin.home, peer));
            if (origin.twin) {
                Origin memory here = _origin(token);
                require(here.twin && here.home == origin.home, OriginMismatch(token));
            } else {
                token = _bridged(transfer);
            }
        }
        IERC7802(token).crosschainMint(to, transfer.amount);
    }

    /// Where `token` comes from. What it says at the first time counts for good.
    function _origin(address token) private returns (Origin memory origin) {
        origin = originOf[token];
        if (origin.home != 0) return origin;
        require(token.code.length > 0, NotAToken(token));
        origin = Origin(HUB.rollup(), token, false);
        if (ERC165Checker.supportsInterface(token, type(IERC7802).interfaceId)) {
            (bool ok, bytes memory answer) = token.staticcall(abi.encodeCall(ITwinToken.homeRollup, ()));
            if (ok && answer.length == 32) {
                uint256 home = abi.decode(answer, (uint256));
                require(home > 0 && home <= type(uint64).max, OriginMismatch(token));
                origin.home = uint64(home);
                origin.twin = true;
            }
        }
        originOf[token] = origin;
    }

    /// The token that stands for a plain token of another rollup; made when it is first needed.
    function _bridged(Transfer memory transfer) private returns (address token) {
        Origin memory origin = transfer.origin;
        token = bridgedAddress(origin.home, origin.token);
        if (originOf[token].home != 0) return token;
        originOf[token] = origin;
        Clones.cloneDeterministic(address(BRIDGED), _salt(origin.home, origin.token));
        BridgedERC20(token).initialize(transfer.name, transfer.symbol, transfer.decimals);
        emit TokenBridged(token, origin.home, origin.token);
    }

    /// What {BridgedERC20} is to be called. A token that does not say gets no name, and 0 decimals.
    function _describe(Transfer memory transfer, address token) private view {
        transfer.name = _text(token, IERC20Metadata.name.selector);
        transfer.symbol = _text(token, IERC20Metadata.symbol.selector);
        (bool ok, bytes memory answer) = token.staticcall(abi.encodeCall(IERC20Metadata.decimals, ()));
        if (ok && answer.length == 32) transfer.decimals = uint8(answer[31]);
    }

    /// The first 32 bytes of a string that `token` returns; nothing if it does not.
    function _text(address token, bytes4 selector) private view returns (bytes32 text) {
        (bool ok, bytes memory answer) = token.staticcall(abi.encodePacked(selector));
        // Offset, length, characters.
        if (!ok || answer.length < 96) return 0;
        uint256 length;
        assembly ("memory-safe") {
            length := mload(add(answer, 0x40))
            text := mload(add(answer, 0x60))
        }
        if (length < 32) text &= bytes32(~(type(uint256).max >> (8 * length)));
    }

    function _salt(uint64 home, address token) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(home, token));
    }
}
