/** Removes the entries of a map that were added first, until at most `most` are left. */
export function keepLatest<Key>(map: Map<Key, unknown>, most: number): void {
  for (const oldest of map.keys()) {
    if (map.size <= most) return;
    map.delete(oldest);
  }
}
