/** Translates what a source says of its guest from the messages of proto/ferry/v1/peer.proto to the domain types. */
import type { DiskMark, Drive, GuestDisks, GuestOffer, Image } from "../../protocol/messages.ts";
import { flag, list, malformed, object, shortText, strings, text, type WireObject, whole } from "./wire-read.ts";

/** The bounds of lists and texts in what a source says of its guest. They are above what any guest has. */
const DEVICES_MAX = 6000;
const SETTINGS_MAX = 10_000;
const DRIVES_MAX = 1024;
const LAYERS_MAX = 1024;
const NAME_CHARACTERS_MAX = 4096;

type FoundFields = "devices" | "deviceSettings" | "disks" | "mark" | "disksUnchecked";

/**
 * Reads the devices and disks of a guest. A field that the message does not have is absent from the result: a source
 * agent of an earlier version of Ferry does not send every field.
 * @throws MigrationFault `peer-invalid`
 */
export function foundGuest(given: WireObject): Pick<GuestOffer, FoundFields> {
  const devices = names(given.devices, "devices", DEVICES_MAX);
  const deviceSettings = names(given.deviceSettings, "device settings", SETTINGS_MAX);
  return {
    ...(devices.length === 0 ? {} : { devices }),
    ...(deviceSettings.length === 0 ? {} : { deviceSettings }),
    ...(given.disks === undefined || given.disks === null ? {} : { disks: disks(object(given.disks, "disks")) }),
    ...(given.mark === undefined || given.mark === null ? {} : { mark: mark(object(given.mark, "mark")) }),
    ...(flag(given.disksUnchecked) ? { disksUnchecked: true } : {}),
  };
}

function disks(given: WireObject): GuestDisks {
  const memory = list(given.memory ?? [], "memory files", DRIVES_MAX).map(image);
  return {
    boot: name(given.boot, "boot"),
    drives: list(given.drives, "drives", DRIVES_MAX).map(drive),
    ...(memory.length === 0 ? {} : { memory }),
  };
}

const drive = (given: WireObject): Drive => ({
  name: name(given.name, "drive name"),
  removable: flag(given.removable),
  place: name(given.place ?? "", "place of a drive"),
  layers: list(given.layers, "layers", LAYERS_MAX).map(image),
});

const image = (given: WireObject): Image => ({
  format: name(given.format, "format"),
  file: name(given.file, "image"),
  byteLength: whole(given.byteLength, "image length"),
  writable: flag(given.writable),
  inode: name(given.inode, "inode"),
  baseName: name(given.baseName, "image name"),
});

/**
 * Reads the mark of a guest's disks: a file that the source puts beside the images, by which a host finds out that it
 * shares their directory. The destination reads a file of this name, so the name must have the form of a mark's name.
 */
function mark(given: WireObject): DiskMark {
  const found = { name: text(given.name, "mark"), content: text(given.content, "mark") };
  if (!/^\.ferry-[A-Za-z0-9_-]{1,64}$/.test(found.name)) throw malformed("mark", "is no name of a mark");
  if (!/^[0-9a-f]{32}$/.test(found.content)) throw malformed("mark", "has no content of a mark");
  return found;
}

const names = (wire: unknown, field: string, most: number): readonly string[] =>
  strings(wire ?? [], field, most).map((one) => name(one, field));

const name = (wire: unknown, field: string): string => shortText(wire, field, NAME_CHARACTERS_MAX);
