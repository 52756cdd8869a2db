/** Arithmetic with money: whole hundredths, never a float. */

/** @param {string} amount  a decimal string with two places */
export function hundredths(amount) {
  return BigInt(amount.replace(".", ""));
}

/** @param {bigint} value  hundredths, not negative */
export function decimal(value) {
  const digits = String(value).padStart(3, "0");
  return `${digits.slice(0, -2)}.${digits.slice(-2)}`;
}
