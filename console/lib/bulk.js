/** The same action for several things: each by itself, with a result for each. */
import { asProblem } from "./http.js";
import { problemText } from "./problems.js";

/** @typedef {{key: string, isDone: boolean, message: string}} Result  `message`: why it failed, else what was done */

/** How many run at the same time: browsers open six connections to a host, and streams need some of them. */
const AT_ONCE = 3;

/**
 * Do something with each key. A failure concerns no other.
 * @param {Iterable<string>} keys
 * @param {(key: string) => Promise<string>} act  returns what was done
 * @returns {Promise<Result[]>}  in the order of the keys
 */
export async function forEach(keys, act) {
  const all = [...keys];
  /** @type {Result[]} */
  const results = [];
  let next = 0;
  const work = async () => {
    while (next < all.length) {
      const at = next;
      next += 1;
      results[at] = await one(all[at], act);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return results;
}

/**
 * @param {string} key
 * @param {(key: string) => Promise<string>} act
 * @returns {Promise<Result>}
 */
async function one(key, act) {
  try {
    return { key, isDone: true, message: await act(key) };
  } catch (error) {
    return { key, isDone: false, message: problemText(asProblem(error)) };
  }
}
