// What both Node clients send, and how they prove that it came back once and unchanged.

import { createHash, randomBytes } from 'node:crypto'

export const bootstrap = process.argv[2] ?? process.env.BOOTSTRAP
export const recordsPerCodec = 400

export const topicName = client => `smoke-${client}-${randomBytes(4).toString('hex')}`

export function records (codec) {
  return Array.from({ length: recordsPerCodec }, (_, number) => ({
    key: `${codec}-${number % 50}`,
    value: `${codec}:${number}:` + 'tailrace '.repeat(number % 64) + (number === 13 ? 'x'.repeat(200_000) : ''),
    headers: { trace: `t-${number}`, empty: '' }
  }))
}

export class History {
  sent = []
  received = []
  places = new Set()

  static #digest ({ key, value, headers }) {
    const hash = createHash('sha256').update(key).update('\0').update(value)
    for (const [name, content] of Object.entries(headers).sort()) hash.update(`${name}=${content}`)
    return hash.digest('hex')
  }

  send (record) { this.sent.push(History.#digest(record)) }

  receive (partition, offset, record) {
    const place = `${partition}/${offset}`
    if (this.places.has(place)) throw new Error(`offset ${place} came twice`)
    this.places.add(place)
    this.received.push(History.#digest(record))
  }

  check (client) {
    const [sent, received] = [this.sent, this.received].map(digests => digests.toSorted().join('\n'))
    if (sent !== received) {
      throw new Error(`${client}: sent ${this.sent.length}, received ${this.received.length}, and they differ`)
    }
    const checksum = createHash('sha256').update(received).digest('hex').slice(0, 8)
    console.log(`${client}: ${this.received.length} records, checksum ${checksum}`)
  }
}
