// Shows: URLs that are refused or surprising.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const cases = [
    "", "http://", "http:///", "//x", "https://a b/", "https://a%00b/", "http://[::1", "http://a:99999/", "http://a:b/",
    "http://%41/", "http://a.b%2ec/", "http://1.2.3.4.5/", "http://256.256.256.256/", "http://a..b/", "file:///etc/passwd",
    "javascript:alert(1)", "http:example.com", "http://user@/", "https://example.com/%", "https://example.com/%zz",
    "https://example.com/\u{1f600}", "https://example.com:0443/", "blob:https://a.b/c", "http://xn--/", "http://\u00ad/",
  ];
  for (const text of cases) await show(JSON.stringify(text), () => new URL(text).href);
});
