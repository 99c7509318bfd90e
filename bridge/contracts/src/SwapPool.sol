// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20, SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IBundleParticipant} from "./AtomicVault.sol";
import {VAULT} from "./Predeploys.sol";

/// @title A constant-product pool that takes part in bundles (reference)
/// @notice A swap is priced and reserved in `prepare`; `commit` pays it out, `abort` gives the input back.
///
/// While swaps are reserved nobody knows which of them will happen, so each is priced as if that had happened which is worst
/// for it: of the token that it brings, the pool counts all that it may come to have (`most`), of the token that it takes, only
/// what it will have in any case (`least`). So the product of the pool's tokens never falls, whatever is committed and aborted,
/// in whichever order. An account that cannot be paid is owed what it is due, so that nobody can keep a reservation from ending.
/// Tokens that keep a fee, rebase, or call back are not for this pool. The owner's tokens alone are in it; there are no shares.
contract SwapPool is IBundleParticipant, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// Per thousand of what is brought.
    uint256 private constant FEE = 3;

    struct Reserve {
        uint256 least;
        uint256 most;
    }

    struct Reservation {
        address signer;
        address to;
        IERC20 tokenIn;
        uint256 amountIn;
        uint256 amountOut;
    }

    IERC20 public immutable token0;
    IERC20 public immutable token1;
    address public immutable owner;
    mapping(IERC20 token => Reserve) public reserves;
    /// @notice What could not be paid out: {claim}.
    mapping(IERC20 token => mapping(address account => uint256)) public owed;
    mapping(bytes32 key => Reservation) private _reservations;

    error NotVault(address caller);
    error NotOwner(address caller);
    error SameTokens(IERC20 token);
    error NotInPool(IERC20 token);
    error TooLittleOut(uint256 amountOut);
    error NoReservation();

    modifier onlyVault() {
        require(msg.sender == address(VAULT), NotVault(msg.sender));
        _;
    }

    constructor(IERC20 token0_, IERC20 token1_, address owner_) {
        require(address(token0_) != address(token1_), SameTokens(token0_));
        (token0, token1, owner) = (token0_, token1_, owner_);
    }

    /// @notice Adds liquidity of the owner's.
    function add(uint256 amount0, uint256 amount1) external nonReentrant {
        require(msg.sender == owner, NotOwner(msg.sender));
        _grow(token0, amount0);
        _grow(token1, amount1);
        token0.safeTransferFrom(owner, address(this), amount0);
        token1.safeTransferFrom(owner, address(this), amount1);
    }

    /// @notice Takes out liquidity that no swap has reserved.
    function remove(uint256 amount0, uint256 amount1) external nonReentrant {
        require(msg.sender == owner, NotOwner(msg.sender));
        _shrink(token0, amount0);
        _shrink(token1, amount1);
        token0.safeTransfer(owner, amount0);
        token1.safeTransfer(owner, amount1);
    }

    /// @notice Pays what the caller is owed to an account that can receive it.
    function claim(IERC20 token, address to) external nonReentrant {
        uint256 amount = owed[token][msg.sender];
        owed[token][msg.sender] = 0;
        token.safeTransfer(to, amount);
    }

    /// @notice What `amountIn` of `tokenIn` would be swapped for.
    function quote(IERC20 tokenIn, uint256 amountIn) public view returns (uint256) {
        uint256 paid = amountIn * (1000 - FEE);
        return (reserves[_other(tokenIn)].least * paid) / (reserves[tokenIn].most * 1000 + paid);
    }

    /// @inheritdoc IBundleParticipant
    /// @param data ABI-encoded: token brought, its amount, least amount to be got, who gets it
    function prepare(bytes32 id, uint8 leg, uint8 item, address signer, bytes calldata data)
        external
        onlyVault
        nonReentrant
        returns (bytes4)
    {
        (IERC20 tokenIn, uint256 amountIn, uint256 least, address to) =
            abi.decode(data, (IERC20, uint256, uint256, address));
        uint256 amountOut = quote(tokenIn, amountIn);
        require(amountOut >= least && amountOut > 0, TooLittleOut(amountOut));
        reserves[_other(tokenIn)].least -= amountOut;
        reserves[tokenIn].most += amountIn;
        _reservations[_key(id, leg, item)] = Reservation(signer, to, tokenIn, amountIn, amountOut);
        tokenIn.safeTransferFrom(signer, address(this), amountIn);
        return IBundleParticipant.prepare.selector;
    }

    /// @inheritdoc IBundleParticipant
    function commit(bytes32 id, uint8 leg, uint8 item) external onlyVault nonReentrant {
        Reservation memory r = _end(id, leg, item);
        IERC20 tokenOut = _other(r.tokenIn);
        reserves[r.tokenIn].least += r.amountIn;
        reserves[tokenOut].most -= r.amountOut;
        _pay(tokenOut, r.to, r.amountOut);
    }

    /// @inheritdoc IBundleParticipant
    function abort(bytes32 id, uint8 leg, uint8 item) external onlyVault nonReentrant {
        Reservation memory r = _end(id, leg, item);
        reserves[r.tokenIn].most -= r.amountIn;
        reserves[_other(r.tokenIn)].least += r.amountOut;
        _pay(r.tokenIn, r.signer, r.amountIn);
    }

    function _end(bytes32 id, uint8 leg, uint8 item) private returns (Reservation memory r) {
        bytes32 key = _key(id, leg, item);
        r = _reservations[key];
        require(r.signer != address(0), NoReservation());
        delete _reservations[key];
    }

    function _pay(IERC20 token, address to, uint256 amount) private {
        if (!token.trySafeTransfer(to, amount)) owed[token][to] += amount;
    }

    function _grow(IERC20 token, uint256 amount) private {
        reserves[token].least += amount;
        reserves[token].most += amount;
    }

    function _shrink(IERC20 token, uint256 amount) private {
        reserves[token].least -= amount;
        reserves[token].most -= amount;
    }

    function _other(IERC20 token) private view returns (IERC20) {
        if (address(token) == address(token0)) return token1;
        require(address(token) == address(token1), NotInPool(token));
        return token0;
    }

    function _key(bytes32 id, uint8 leg, uint8 item) private pure returns (bytes32) {
        return keccak256(abi.encode(id, leg, item));
    }
}
