/** What every component imports: templates, hooks, and `useSignal` for state that several components share. */
import { h, render, Fragment, createContext, Component } from "preact";
import { useCallback, useContext, useEffect, useErrorBoundary, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { batch, computed, effect, signal } from "@preact/signals-core";
import htm from "htm";

/** @typedef {import("preact").ComponentChildren} Children */
/** @typedef {import("preact").VNode<any>} VNode */
/**
 * @template T
 * @typedef {import("@preact/signals-core").ReadonlySignal<T>} Signal
 */

/** A template of elements; every text in it is escaped. */
export const html = /** @type {(strings: TemplateStringsArray, ...values: unknown[]) => VNode} */ (htm.bind(h));

/**
 * The value of a signal; the component renders again when it changes.
 * @template T
 * @param {Signal<T>} source
 * @returns {T}
 */
export function useSignal(source) {
  const [, refresh] = useState(0);
  useLayoutEffect(() => {
    let shown = source.peek();
    return effect(() => {
      const now = source.value;
      if (now !== shown) {
        shown = now;
        refresh((count) => count + 1);
      }
    });
  }, [source]);
  return source.peek();
}

/**
 * Class names without the false ones.
 * @param {...(string | false | null | undefined)} names
 */
export function classes(...names) {
  return names.filter(Boolean).join(" ");
}

export {
  batch,
  Component,
  computed,
  createContext,
  effect,
  Fragment,
  render,
  signal,
  useCallback,
  useContext,
  useEffect,
  useErrorBoundary,
  useId,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
};
