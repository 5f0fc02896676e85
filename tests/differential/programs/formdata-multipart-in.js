// Shows: reading a multipart form with fields and files.
// > POST /
// + content-type: multipart/form-data; boundary=XX
// = --XX\r\nContent-Disposition: form-data; name="field"\r\n\r\nvalue é\r\n
// = --XX\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/css\r\n\r\nline1\r\nline2\r\n
// = --XX\r\nContent-Disposition: form-data; name="field"\r\n\r\n\r\n--XX--\r\n
// > POST /
// + content-type: multipart/form-data; boundary=XX
// = --YY\r\n\r\nbroken
// > POST /
// + content-type: multipart/form-data
// = --XX--
import { report } from "report.js";

export default {
  fetch: (request) => report(async (show) => {
    await show("form", async () => {
      const entries = [];
      for (const [name, value] of await request.formData()) {
        if (typeof value === "string") entries.push([name, value]);
        else entries.push([name, value.name, value.type, value.size, await value.text()]);
      }
      return entries;
    });
  }),
};
