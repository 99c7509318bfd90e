// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC165} from "@openzeppelin/contracts/interfaces/IERC165.sol";
import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {IERC20, SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Calls} from "./Calls.sol";
import {HubProof} from "./Hub.sol";
import {HUB} from "./Predeploys.sol";
import {Bundle, Call, Leg, Move, Wire} from "./Wire.sol";

/// @title A contract that takes part in bundles
/// @notice It is called by {AtomicVault} only, and must check that. What is promised in `prepare` must be possible in `commit`
/// and undone in `abort`, whichever comes; exactly one of them does, once it succeeds. So neither may depend on an account of
/// the signer's choice: one that refuses to be paid would keep the reservation for ever.
interface IBundleParticipant {
    /// @notice Reserves what the item needs, or reverts, which makes the leg vote no.
    /// @param id the bundle
    /// @param leg the leg's index in it
    /// @param item the item's index in the leg; with `id` and `leg`, what to keep a reservation under
    /// @param signer whose leg it is; the vault has checked that it calls
    /// @return its own selector
    function prepare(bytes32 id, uint8 leg, uint8 item, address signer, bytes calldata data) external returns (bytes4);
    /// @notice The bundle is committed.
    function commit(bytes32 id, uint8 leg, uint8 item) external;
    /// @notice The bundle is aborted.
    function abort(bytes32 id, uint8 leg, uint8 item) external;
}

/// @title Holds what the legs of bundles give, until the hub has decided
/// @notice `prepare` is called by a leg's transaction and is its vote. The hub decides from the votes of all legs; its decision
/// is a leaf of its accumulator, which anyone brings to `settle`. Nobody owns this contract, and no clock of its own ends a
/// bundle: an abort would otherwise meet a commit on another rollup.
contract AtomicVault is ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// Of a bundle.
    uint256 public constant LEGS_MIN = 2;
    uint256 public constant LEGS_MAX = 16;
    /// Of a leg: moves and calls together.
    uint256 public constant ITEMS_MAX = 16;
    /// Most gas for a participant's `commit` or `abort`.
    uint64 public constant GAS_MAX = 5_000_000;
    /// Gas for paying out one move, unless {retry} or {redirect} gives more.
    uint256 private constant MOVE_GAS = 200_000;
    /// Gas for a token to say what it is: ERC-165 allows no more.
    uint256 private constant ERC165_GAS = 30_000;

    /// @notice What has become of a leg here.
    enum Status {
        None,
        Prepared,
        Committed,
        Aborted
    }

    /// @notice What the hub's accumulator says.
    enum Decision {
        Abort,
        Commit,
        /// The leg was prepared outside its bundle.
        Release
    }

    struct State {
        Status status;
        /// Bit `i` is set while item `i` is held.
        uint16 held;
    }

    /// @notice A leg's state. It stays, so that a leg can be prepared once only.
    mapping(bytes32 id => mapping(uint8 leg => State)) public states;

    /// @notice The leg votes yes. The node reads the votes of a block from these.
    event Prepared(bytes32 indexed id, uint8 indexed leg, address indexed signer);
    /// @notice What was prepared, where it is not for sure the transaction itself that says so: its calldata may be of another form,
    /// that of the contract which calls. So whoever reads the chain can settle every leg.
    event PreparedByContract(bytes32 indexed id, uint8 indexed leg, Bundle bundle, Leg terms);
    /// @notice The decision is known here.
    event Settled(bytes32 indexed id, uint8 indexed leg, bool committed);
    /// @notice An item was paid out, or its participant told.
    event ItemDone(bytes32 indexed id, uint8 indexed leg, uint8 item);
    /// @notice An item stays held, since its token, receiver or participant failed. It can be tried again.
    event ItemFailed(bytes32 indexed id, uint8 indexed leg, uint8 item);

    /// @notice The number of legs, or the leg's index, is out of bounds.
    error BadBundle(uint256 legs, uint8 index);
    /// @notice The leg is not the one that the bundle has at this index, or is for another rollup.
    error WrongLeg(bytes32 hash, uint64 rollup);
    error NotSigner(address caller);
    /// @notice No items, too many, of no known kind, or with too much gas.
    error BadItems();
    error WrongStatus(Status status);
    /// @notice The moves of coin do not add up to what came with the call.
    error WrongValue(uint256 expected);
    /// @notice The token did not arrive as stated (it keeps a fee, or is not such a token).
    error NotEscrowed(address token);
    error NotPrepared(address participant);
    /// @notice Neither the zero account nor this contract can be paid, nor send on what it cannot receive.
    error BadReceiver(address receiver);
    /// @notice A move of an ERC-20 token names a collection of ERC-721 tokens, which could not be paid out as such.
    error NotERC20(address token);
    /// @notice The item is not a move that is held for the caller.
    error NotYours(uint8 item);
    error PayoutFailed(uint8 item);

    /// @notice Votes yes: takes what the leg gives, and asks its participants. Reverts if any of it fails.
    /// @param index the leg's place in the bundle
    function prepare(Bundle calldata bundle, uint8 index, Leg calldata leg) external payable nonReentrant {
        bytes32 id = _check(bundle, index, leg);
        require(msg.sender == leg.signer, NotSigner(msg.sender));
        State storage state = states[id][index];
        require(state.status == Status.None, WrongStatus(state.status));
        uint256 moves = leg.moves.length;
        uint256 items = moves + leg.calls.length;
        require(items > 0 && items <= ITEMS_MAX, BadItems());
        (state.status, state.held) = (Status.Prepared, uint16((1 << items) - 1));
        uint256 coin;
        for (uint256 i; i < moves; i++) {
            coin += _take(leg.moves[i]);
        }
        require(coin == msg.value, WrongValue(coin));
        for (uint256 i = moves; i < items; i++) {
            Call calldata c = leg.calls[i - moves];
            require(c.gasLimit <= GAS_MAX, BadItems());
            bytes4 answer = IBundleParticipant(c.participant).prepare(id, index, uint8(i), msg.sender, c.data);
            require(answer == IBundleParticipant.prepare.selector, NotPrepared(c.participant));
        }
        emit Prepared(id, index, msg.sender);
        // An account with code (EIP-7702) may call by way of itself.
        if (msg.sender != tx.origin || msg.sender.code.length > 0) {
            emit PreparedByContract(id, index, bundle, leg);
        }
    }

    /// @notice Brings the hub's decision, and carries it out for `items`.
    /// @param height hub height of the decision; not looked at for a release
    /// @param items bit `i` for item `i`; the others stay held until {retry}
    function settle(
        Bundle calldata bundle,
        uint8 index,
        Leg calldata leg,
        Decision decision,
        uint64 height,
        HubProof calldata proof,
        uint16 items
    ) external nonReentrant {
        bytes32 id = _check(bundle, index, leg);
        State storage state = states[id][index];
        require(state.status == Status.Prepared, WrongStatus(state.status));
        bool committed = decision == Decision.Commit;
        HUB.verify(
            decision == Decision.Release
                ? Wire.releaseLeaf(id, leg.rollup, index)
                : Wire.decisionLeaf(id, committed, height),
            proof
        );
        state.status = committed ? Status.Committed : Status.Aborted;
        emit Settled(id, index, committed);
        _carryOut(id, index, leg, committed, items, 0);
    }

    /// @notice Carries out items of a settled leg that are still held.
    /// @param gasLimit gas for each of them, where it is more than they get in {settle}: neither a token that needs much
    /// nor a leg that states too little for a participant can hold an item for ever
    function retry(Bundle calldata bundle, uint8 index, Leg calldata leg, uint16 items, uint256 gasLimit)
        external
        nonReentrant
    {
        bytes32 id = _check(bundle, index, leg);
        _carryOut(id, index, leg, _committed(id, index), items, gasLimit);
    }

    /// @notice Pays a held move of a settled leg to another account, for the account that it is due to: the way out where
    /// that one cannot receive.
    /// @param gasLimit gas for it, where it is more than in {settle}
    function redirect(Bundle calldata bundle, uint8 index, Leg calldata leg, uint8 item, address to, uint256 gasLimit)
        external
        nonReentrant
    {
        _checkReceiver(to);
        bytes32 id = _check(bundle, index, leg);
        bool committed = _committed(id, index);
        State storage state = states[id][index];
        require(item < leg.moves.length && (state.held >> item) & 1 == 1, NotYours(item));
        Move calldata m = leg.moves[item];
        require(msg.sender == (committed ? m.to : m.refund), NotYours(item));
        state.held &= ~(uint16(1) << item);
        require(_pay(m, to, gasLimit), PayoutFailed(item));
        emit ItemDone(id, index, item);
    }

    function _check(Bundle calldata bundle, uint8 index, Leg calldata leg) private view returns (bytes32 id) {
        uint256 legs = bundle.legs.length;
        require(legs >= LEGS_MIN && legs <= LEGS_MAX && index < legs, BadBundle(legs, index));
        bytes32 hash = Wire.legHash(leg);
        require(hash == bundle.legs[index] && leg.rollup == HUB.rollup(), WrongLeg(hash, leg.rollup));
        return Wire.bundleId(bundle);
    }

    function _committed(bytes32 id, uint8 index) private view returns (bool) {
        Status status = states[id][index].status;
        require(status == Status.Committed || status == Status.Aborted, WrongStatus(status));
        return status == Status.Committed;
    }

    function _checkReceiver(address receiver) private view {
        require(receiver != address(0) && receiver != address(this), BadReceiver(receiver));
    }

    /// Takes a move's asset from the caller; returns how much coin it needs.
    function _take(Move calldata m) private returns (uint256 coin) {
        _checkReceiver(m.to);
        _checkReceiver(m.refund);
        if (m.kind == Wire.COIN) {
            require(m.token == address(0), BadItems());
            return m.amount;
        }
        if (m.kind == Wire.ERC20) {
            require(!_isERC721(m.token), NotERC20(m.token));
            IERC20 token = IERC20(m.token);
            uint256 before = token.balanceOf(address(this));
            token.safeTransferFrom(msg.sender, address(this), m.amount);
            require(token.balanceOf(address(this)) - before == m.amount, NotEscrowed(m.token));
            return 0;
        }
        require(m.kind == Wire.ERC721, BadItems());
        IERC721(m.token).transferFrom(msg.sender, address(this), m.amount);
        require(IERC721(m.token).ownerOf(m.amount) == address(this), NotEscrowed(m.token));
    }

    /// Whether a contract says of itself that it is ERC-721. Its `transferFrom` and `balanceOf` pass for those of ERC-20 where the
    /// amount is 1.
    function _isERC721(address token) private returns (bool) {
        bytes memory data = abi.encodeCall(IERC165.supportsInterface, (type(IERC721).interfaceId));
        (bool ok, uint256 size, bytes32 word) = Calls.attempt(token, 0, ERC165_GAS, data);
        return ok && size >= 32 && word != 0;
    }

    function _carryOut(bytes32 id, uint8 index, Leg calldata leg, bool committed, uint16 wanted, uint256 gasLimit)
        private
    {
        uint16 todo = states[id][index].held & wanted;
        // Done before it is tried, so that nothing that is called finds it held; what fails is held again.
        states[id][index].held ^= todo;
        uint16 failed;
        uint256 moves = leg.moves.length;
        for (uint8 i; todo >> i > 0; i++) {
            if ((todo >> i) & 1 == 0) continue;
            bool done;
            if (i < moves) {
                Move calldata m = leg.moves[i];
                done = _pay(m, committed ? m.to : m.refund, gasLimit);
            } else {
                done = _tell(leg.calls[i - moves], id, index, i, committed, gasLimit);
            }
            if (done) {
                emit ItemDone(id, index, i);
            } else {
                failed |= uint16(1) << i;
                emit ItemFailed(id, index, i);
            }
        }
        if (failed > 0) states[id][index].held |= failed;
    }

    /// Pays a move out. False, without effect, if the token or the receiver refuses.
    function _pay(Move calldata m, address to, uint256 gasLimit) private returns (bool ok) {
        if (gasLimit < MOVE_GAS) gasLimit = MOVE_GAS;
        if (m.kind == Wire.COIN) {
            (ok,,) = Calls.attempt(to, m.amount, gasLimit, "");
        } else if (m.kind == Wire.ERC20) {
            uint256 size;
            bytes32 word;
            (ok, size, word) = Calls.attempt(m.token, 0, gasLimit, abi.encodeCall(IERC20.transfer, (to, m.amount)));
            // As in SafeERC20: a token may return nothing.
            ok = ok && (size == 0 || (size >= 32 && uint256(word) == 1));
        } else {
            // Not safeTransferFrom: a receiver cannot refuse what it gave or agreed to take.
            bytes memory data = abi.encodeCall(IERC721.transferFrom, (address(this), to, m.amount));
            (ok,,) = Calls.attempt(m.token, 0, gasLimit, data);
        }
    }

    function _tell(Call calldata c, bytes32 id, uint8 leg, uint8 item, bool committed, uint256 gasLimit)
        private
        returns (bool ok)
    {
        if (gasLimit < c.gasLimit) gasLimit = c.gasLimit;
        bytes memory data = committed
            ? abi.encodeCall(IBundleParticipant.commit, (id, leg, item))
            : abi.encodeCall(IBundleParticipant.abort, (id, leg, item));
        (ok,,) = Calls.attempt(c.participant, 0, gasLimit, data);
    }
}
