/** One order as it lives: its present state and its timeline, kept up to date by the stream of its events. */
import { useEffect, useState } from "./html.js";
import { api } from "./api.js";
import { follow } from "./stream.js";
import { useResource } from "./resource.js";
import { afterEvent } from "./saga.js";

/** @typedef {{event: string, event_id: string, service: string, at: string, data: Record<string, any>}} TimelineEntry */
/** @typedef {{order: import("./resource.js").Resource<any>, timeline: TimelineEntry[], state: import("./stream.js").StreamState}} LiveOrder */

/**
 * @param {string} id
 * @param {(entry: TimelineEntry) => void} [onEntry]  called for each new entry of the timeline
 * @returns {LiveOrder}
 */
export function useLiveOrder(id, onEntry) {
  const order = useResource((signal) => api.get(`/orders/${id}`, {}, { signal }), [id]);
  const [timeline, setTimeline] = useState(/** @type {TimelineEntry[]} */ ([]));
  const [state, setState] = useState(/** @type {import("./stream.js").StreamState} */ ("connecting"));
  useEffect(() => {
    setTimeline([]);
    const known = new Set();
    return follow(`/orders/${id}/events`, {
      onState: setState,
      onEvent: ({ event, data }) => {
        if (event !== "message" || known.has(data.event_id)) return; // the status follows from the events
        known.add(data.event_id);
        setTimeline((before) => [...before, data]);
        onEntry?.(data);
      },
    });
  }, [id]);
  // The order may have been read before or after an event: whichever is further holds.
  const data = order.data && timeline.reduce(afterEvent, order.data);
  return { order: { ...order, data }, timeline, state };
}
