import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.Arrays;
import java.util.StringTokenizer;

public class Main {
    public static void main(String[] args) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        StringTokenizer words = new StringTokenizer(in.readLine());
        int n = Integer.parseInt(words.nextToken());
        long voucher = Long.parseLong(words.nextToken());
        words = new StringTokenizer(in.readLine());
        int[] prices = new int[n];
        for (int i = 0; i < n; i++) {
            prices[i] = Integer.parseInt(words.nextToken());
        }
        Arrays.sort(prices);

        long pairs = 0;
        int end = n; // everything from here on is too dear
        int start = n; // everything from here on is dear enough
        for (int i = 0; i < n; i++) {
            long missing = voucher - prices[i];
            while (end > 0 && prices[end - 1] > missing) {
                end--;
            }
            while (start > 0 && prices[start - 1] >= missing) {
                start--;
            }
            pairs += Math.max(0, end - Math.max(start, i + 1));
        }
        System.out.println(pairs);
    }
}
