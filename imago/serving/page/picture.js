// Makes pictures small: what is heavy before it is sent, and thumbnails.

const HEAVY = 2e6; // bytes
const SHORTER_SIDE = 1024; // pixels: twice what most models see, and more
const THUMBNAIL = 96; // pixels

// Returns what to send, and what to tell of it; a picture is one of so many that are sent together.
// What this browser cannot read is left for the endpoint to judge.
export async function lightened(file, info, many) {
  const { upload_bytes: most, batch_bytes: mostInAll } = info.limits;
  const whole = { name: file.name, size: file.size, blob: file, note: "" };
  const bitmap = file.size > Math.min(HEAVY, most, (0.9 * mostInAll) / many) ? await decoded(file) : null;
  if (!bitmap) return whole;
  const { width, height } = bitmap;
  const scale = Math.min(1, Math.max(SHORTER_SIDE, 2 * info.image_size) / Math.min(width, height));
  const canvas = painted(bitmap, 0, 0, width, height, Math.round(width * scale), Math.round(height * scale));
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  if (!blob || blob.size >= file.size) return whole;
  const sizes = `from ${width} × ${height} (${weight(file.size)}) to ${canvas.width} × ${canvas.height} (${weight(blob.size)})`;
  return { ...whole, blob, note: `Scaled down here before it was sent, ${sizes}.` };
}

// Returns a data URL, empty where this browser cannot read the picture.
export async function thumbnail(blob) {
  const bitmap = await decoded(blob);
  if (!bitmap) return "";
  const side = Math.min(bitmap.width, bitmap.height);
  const [x, y] = [(bitmap.width - side) / 2, (bitmap.height - side) / 2];
  return painted(bitmap, x, y, side, side, THUMBNAIL, THUMBNAIL).toDataURL("image/jpeg", 0.7);
}

export function weight(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

const decoded = (blob) => createImageBitmap(blob).catch(() => null);

function painted(bitmap, x, y, width, height, newWidth, newHeight) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, newWidth);
  canvas.height = Math.max(1, newHeight);
  const brush = canvas.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.fillStyle = "white"; // as the endpoint has it behind what is transparent
  brush.fillRect(0, 0, canvas.width, canvas.height);
  brush.drawImage(bitmap, x, y, width, height, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
}
