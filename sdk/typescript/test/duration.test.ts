import assert from 'node:assert/strict'
import { test } from 'node:test'
import { durationMs, durationText, retryAfterMs, timeText } from '#sdk/duration.js'

test('durations are texts with units, or milliseconds', () => {
  for (const [value, ms] of [['500ms', 500], ['30s', 30_000], ['1h30m', 5_400_000], ['30d', 2_592_000_000], ['0s', 0], [1500, 1500], [0.2, 1]] as const) {
    assert.equal(durationMs(value, 'x'), ms)
  }
  assert.deepEqual([durationText('1h30m', 'x'), durationText(1500, 'x'), durationText(0, 'x'), durationText('0s', 'x')], ['1h30m', '1500ms', '1ms', '1ms'])
  for (const wrong of ['', '5', 's', '1.5h', '1 h', '-1s', '1w', '5mm', '4000d', '9999999999999ms', NaN, -1, Infinity, null, undefined, {}]) {
    assert.throws(() => durationMs(wrong as never, 'timeout'), { code: 'invalid_argument', message: /^timeout '.*' is not a duration; such as/ })
  }
})

test('times are RFC 3339', () => {
  assert.equal(timeText(new Date(0), 'x'), '1970-01-01T00:00:00.000Z')
  assert.equal(timeText('2026-05-06T09:00:00+02:00', 'x'), '2026-05-06T09:00:00+02:00')
  assert.throws(() => timeText('soon', 'at'), { message: /^at 'soon' is not a time/ })
  assert.throws(() => timeText(new Date('x'), 'at'), { code: 'invalid_argument' })
})

test('Retry-After is seconds or a date', () => {
  assert.deepEqual([retryAfterMs('2'), retryAfterMs('0.5'), retryAfterMs(undefined), retryAfterMs('x'), retryAfterMs('-1')], [2000, 500, undefined, undefined, 0])
  const ms = retryAfterMs(new Date(Date.now() + 5000).toUTCString())!
  assert.ok(ms > 3000 && ms <= 5000)
})
