// Dump what ag-psd reads in a PSD: node ag_psd_dump.mjs FILE FOLDER
// FOLDER/document.json describes the tree; FOLDER/N.rgba are the layers' pixels and FOLDER/merged.rgba the merged image.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [file, folder] = process.argv.slice(2);
const { initializeCanvas, readPsd } = createRequire(join(process.cwd(), 'package.json'))('ag-psd');
const createImageData = (width, height) => ({ width, height, data: new Uint8ClampedArray(width * height * 4) });
initializeCanvas(() => { throw new Error('no canvas is needed'); }, createImageData);
const psd = readPsd(readFileSync(file), { useImageData: true, useRawThumbnail: true, logMissingFeatures: true });
let count = 0;

function dump(layer) {
  const { name, left, top, right, bottom, opacity, blendMode, hidden, opened, id, children } = layer;
  const entry = { name, left, top, right, bottom, opacity, blendMode, hidden: !!hidden, opened, id };
  if (children) return { ...entry, children: children.map(dump) };
  entry.pixels = `${count++}.rgba`;
  writeFileSync(join(folder, entry.pixels), layer.imageData ? layer.imageData.data : new Uint8Array());
  return entry;
}

const resources = psd.imageResources ?? {};
writeFileSync(join(folder, 'merged.rgba'), psd.imageData.data);
writeFileSync(join(folder, 'document.json'), JSON.stringify({
  width: psd.width,
  height: psd.height,
  channels: psd.channels,
  children: psd.children.map(dump),
  resolution: resources.resolutionInfo?.horizontalResolution,
  alphaNames: resources.alphaChannelNames,
  alphaIdentifiers: resources.alphaIdentifiers,
  thumbnail: resources.thumbnailRaw ? [resources.thumbnailRaw.width, resources.thumbnailRaw.height] : null,
  xmp: resources.xmpMetadata,
}));
