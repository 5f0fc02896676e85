// Shows: reading an urlencoded form.
// > POST /
// + content-type: application/x-www-form-urlencoded
// = a=1&b=two+words&a=%C3%A9&empty=&=noname&novalue
// > POST /percent
// + content-type: application/x-www-form-urlencoded;charset=UTF-8
// = x=%zz&y=%26
// > POST /
// + content-type: text/plain
// = a=1
import { report } from "report.js";

export default {
  fetch: (request) => report(async (show) => {
    await show("type", request.headers.get("content-type"));
    await show("form", async () => [...(await request.formData())]);
  }),
};
