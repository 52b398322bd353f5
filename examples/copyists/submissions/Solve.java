import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;

public class Main {
    public static void main(String[] args) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        char[] first = in.readLine().trim().toCharArray();
        char[] second = in.readLine().trim().toCharArray();
        int[] best = new int[second.length + 1];
        for (char letter : first) {
            int diagonal = 0;
            for (int j = 1; j < best.length; j++) {
                int above = best[j];
                best[j] = letter == second[j - 1] ? diagonal + 1 : Math.max(above, best[j - 1]);
                diagonal = above;
            }
        }
        System.out.println(best[second.length]);
    }
}
